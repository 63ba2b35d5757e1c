//! What the control group of the process lets it use.

use std::{fs, path::Path};

/// Nine tenths of the least limit in the way of the process's control group, cgroups(7); none without one.
/// The rest is the kernel's: buffers of sockets count, too.
pub(super) fn of_control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    least(&groups, limit).map(|least| least / 10 * 9)
}

fn least(groups: &str, limit: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    groups.lines().filter_map(|line| least_of(line, &limit)).min()
}

/// The least limit of one hierarchy: `0::/path` of version 2, `4:cpu,memory:/path` of version 1.
fn least_of(line: &str, limit: &impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" if number == "0" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // In a container the path may be that of the host, and what is seen only its end: all are tried.
    let path = Path::new(root).join(path.trim_start_matches('/'));
    let folders = path.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(|folder| limit(&folder.join(file))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_counts_in_either_version() {
        let of = |groups: &str| {
            least(groups, |file| match file.to_str()? {
                "/sys/fs/cgroup/a/memory.max" => Some(300),
                "/sys/fs/cgroup/a/b/memory.max" => Some(500),
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => Some(100),
                "/sys/fs/cgroup/memory/x/memory.limit_in_bytes" => Some(u64::MAX / 2),
                _ => None,
            })
        };
        assert_eq!(of("0::/a/b\n"), Some(300));
        assert_eq!(of("0::/c\n"), None);
        assert_eq!(of("3:cpu:/a\n2:hugetlb,memory:/x\n"), Some(100));
        assert_eq!(of("0::/a\n2:memory:/x\n"), Some(100));
        assert_eq!(of("nonsense\n"), None);
    }
}
