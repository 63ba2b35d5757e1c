"""Configurations are made as their templates say."""

import string
import unittest

from bench import proxies

LISTS = {"backend": ["81", "82"], "service": ["a", "b"]}


class Templates(unittest.TestCase):
    def test_a_block_is_repeated_with_value_and_number(self):
        text = "x\n  # each backend\n  s$number :$backend ${number}0\n  # end backend\ny $port\n"
        self.assertEqual(proxies.repeat(text, LISTS), "x\n  s1 :81 10\n  s2 :82 20\ny $port\n")

    def test_blocks_nest_either_way(self):
        text = "# each {0}\n# each {1}\n$service:$backend\n# end {1}\n# end {0}\n"
        by_service = proxies.repeat(text.format("service", "backend"), LISTS)
        by_backend = proxies.repeat(text.format("backend", "service"), LISTS)
        self.assertEqual(by_service.split(), ["a:81", "a:82", "b:81", "b:82"])
        self.assertEqual(by_backend.split(), ["a:81", "b:81", "a:82", "b:82"])

    def test_what_is_not_of_the_block_is_left_as_it_is(self):
        text = "# each service\n$$host $mode ${scratch} $service\n# end service\n"
        once = {"backend": [], "service": ["a"]}
        self.assertEqual(proxies.repeat(text, once), "$$host $mode ${scratch} a\n")

    def test_a_mode_may_have_a_template_of_its_own(self):
        self.assertEqual(proxies.template("nginx.conf", "fresh").name, "nginx.conf")
        self.assertEqual(proxies.template("nginx.conf", "services").name, "nginx-services.conf")

    def test_a_mode_of_two_words_has_the_template_of_the_first(self):
        self.assertEqual(proxies.template("envoy.yaml", "tls-fresh").name, "envoy-tls.yaml")
        self.assertEqual(proxies.template("services.toml", "tls").name, "services.toml")

    def test_each_template_can_be_filled_in_for_each_mode(self):
        names = ["port", "admin_port", "workers", "scratch", "certificates", "mode"]
        values = dict.fromkeys(names, "1")
        for proxy in proxies.PROXIES:
            for mode in proxy.modes:
                for name in proxy.configuration:
                    text = proxies.repeat(proxies.template(name, mode).read_text(), LISTS)
                    self.assertNotIn("# each", text)
                    self.assertNotIn("# end", text)
                    # Raises KeyError for a name that nobody fills in.
                    string.Template(text).substitute(values)


if __name__ == "__main__":
    unittest.main()
