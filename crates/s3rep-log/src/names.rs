//! What is alike in many entries: names that come again and again are kept once.

use std::sync::Arc;

/// More names than a database has resources; beyond it names are not shared, which costs memory only.
const MAX: usize = 256;

/// What the last entries were like.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: Vec<Arc<str>>,
    /// Members of the last record that was read.
    pub(crate) members: usize,
}

impl Names {
    /// The shared copy of a name.
    pub(crate) fn shared(&mut self, name: &str) -> Arc<str> {
        // A list, most recent first: entries of one resource come in rows, so the search ends at once.
        match self.known.iter().position(|known| **known == *name) {
            Some(at @ 0..4) => Arc::clone(&self.known[at]),
            Some(at) => {
                self.known[..=at].rotate_right(1);
                Arc::clone(&self.known[0])
            }
            None => {
                let name: Arc<str> = name.into();
                self.known.truncate(MAX - 1);
                self.known.insert(0, Arc::clone(&name));
                name
            }
        }
    }
}
