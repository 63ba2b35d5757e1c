//! Settings as the workers read them: swapped whole on a reload, read by one load a call.

use std::{cell::Ref, ops::Deref, sync::Arc};

use arc_swap::Guard;
use http::{HeaderName, HeaderValue};

use crate::{
    config::{Node, Settings},
    model::{Newest, Seen},
    route::Routes,
};

/// The newest settings. A reload replaces them; calls that have begun keep what they started with.
#[derive(Debug)]
pub struct Live(Newest<Effective>);

/// The newest settings as one worker reads them, with each call.
#[derive(Debug)]
pub struct Followed {
    live: Arc<Live>,
    seen: Seen<Effective>,
}

/// Settings, with what the path of a call needs of them worked out once.
#[derive(Debug)]
pub struct Effective {
    settings: Arc<Settings>,
    /// Headers that say who calls, for every call.
    pub caller: Vec<(HeaderName, HeaderValue)>,
    /// The routes, worked out.
    pub routes: Routes,
}

impl Live {
    /// Starts with `settings`.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self(Newest::new(Effective::new(settings)))
    }

    /// The newest settings.
    pub fn load(&self) -> Guard<Arc<Effective>> {
        self.0.load()
    }

    /// Puts new settings in force: the next call uses them.
    pub fn replace(&self, settings: Arc<Settings>) {
        self.0.replace(Arc::new(Effective::new(settings)));
    }
}

impl Followed {
    /// Follows what `live` has.
    pub fn new(live: Arc<Live>) -> Self {
        let seen = Seen::new(&live.0);
        Self { live, seen }
    }

    /// The newest settings.
    pub fn newest(&self) -> Ref<'_, Arc<Effective>> {
        self.seen.newest(&self.live.0)
    }
}

impl Effective {
    fn new(settings: Arc<Settings>) -> Self {
        let caller = caller_headers(&settings.node);
        let routes = Routes::new(&settings);
        Self { settings, caller, routes }
    }

    /// The settings, to keep.
    pub const fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

impl Deref for Effective {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

fn caller_headers(node: &Node) -> Vec<(HeaderName, HeaderValue)> {
    let headers = [
        ("pillion-caller", &node.service),
        ("pillion-caller-cluster", &node.cluster),
        ("pillion-caller-zone", &node.zone),
        ("pillion-caller-env", &node.env),
    ];
    let header = |(name, value): (&'static str, &String)| {
        let value = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty())?;
        Some((HeaderName::from_static(name), value))
    };
    headers.into_iter().filter_map(header).collect()
}
