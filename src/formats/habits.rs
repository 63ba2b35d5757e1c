//! What frameworks do with their keys, beyond how they spell them.
//!
//! Commands ask it to say what a missing lease means, who will put a deleted key back, and whose
//! readers take the keys of one service for those of another. As read in each framework's source.

/// How the writers and readers of a format behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Whether every writer puts its keys under a lease, so that one without is a left-over.
    pub always_leased: bool,
    /// When its writer puts a key back that somebody else deletes; none where it does not.
    pub puts_back: Option<&'static str>,
    /// Which readers list `orders` without the last slash, and so see `orders2` under it.
    pub lists_without_slash: Option<&'static str>,
    /// Which readers show the keys of `orders/eu/` under `orders`.
    pub shows_nested: Option<&'static str>,
    /// Which readers fail as a whole over one value that they cannot read.
    pub breaks_over_one: Option<&'static str>,
}

/// The habits of a format, by its name in records.
pub fn habits(format: &str) -> Habits {
    let leased = Habits { always_leased: true, ..Habits::default() };
    match format {
        "etcd-naming" => Habits {
            lists_without_slash: Some("etcd's resolver of 3.4.28 to 3.4.34 and 3.5.0 to 3.5.9"),
            shows_nested: Some("etcd's resolver"),
            ..Habits::default()
        },
        "grpc-wrapper" => Habits { shows_nested: Some("grpc-wrapper"), ..leased },
        "koala" => Habits {
            lists_without_slash: Some("koala"),
            shows_nested: Some("koala"),
            breaks_over_one: Some("koala"),
            ..leased
        },
        "go-zero" => Habits {
            puts_back: Some("at once (go-zero 1.9 and later)"),
            shows_nested: Some("go-zero"),
            ..leased
        },
        "kratos" => Habits { breaks_over_one: Some("kratos"), ..leased },
        "kratos-v1" => Habits { puts_back: Some("within 30 s, with its next refresh"), ..leased },
        "kitex" | "hertz" => {
            Habits { puts_back: Some("within 30 s, when it looks for its key"), ..leased }
        }
        "goframe" => Habits { breaks_over_one: Some("goframe"), ..leased },
        "rpcx" => Habits { puts_back: Some("with its next update"), ..leased },
        "go-micro" | "mqant" | "dubbo-interface" | "dubbo-app" | "jupiter" => leased,
        _ => Habits::default(),
    }
}
