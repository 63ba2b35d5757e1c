//! What `--log` takes.

/// Checks a level, or levels by module: `info`, `warn,pillion=debug`.
///
/// `EnvFilter` alone would take a misspelt level for the name of a module and log nothing.
///
/// # Errors
/// What is wrong and what is allowed.
pub(super) fn parse(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = match directive.split_once('=') {
            Some(("", _)) => return Err(format!("{directive:?} names no module")),
            Some((_, level)) => level,
            None => directive,
        };
        if !LEVELS.contains(&level) {
            let levels = LEVELS.join(", ");
            return Err(format!(
                "{level:?} is not a level; allowed: {levels}, or MODULE=LEVEL, joined by commas"
            ));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::parse;

    #[test]
    fn levels_and_levels_by_module_are_taken_and_mean_something_to_the_log() {
        for good in ["info", "off", "warn,pillion=debug", "info,h2=off,pillion::discovery=trace"] {
            assert!(EnvFilter::try_new(parse(good).unwrap()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for bad in ["", "inof", "INFO ", "pillion=", "=info", "info,", "pillion=loud"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
