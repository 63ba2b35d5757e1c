//! Settings as the workers read them: swapped whole on a reload, read by one load a call.

use std::{ops::Deref, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderName, HeaderValue};

use crate::{
    config::{Node, Settings},
    route::Routes,
};

/// The newest settings. A reload replaces them; calls that have begun keep what they started with.
#[derive(Debug)]
pub struct Live(ArcSwap<Effective>);

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
        Self(ArcSwap::from_pointee(Effective::new(settings)))
    }

    /// The newest settings.
    pub fn load(&self) -> Guard<Arc<Effective>> {
        self.0.load()
    }

    /// Puts new settings in force: the next call uses them.
    pub fn replace(&self, settings: Arc<Settings>) {
        self.0.store(Arc::new(Effective::new(settings)));
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
