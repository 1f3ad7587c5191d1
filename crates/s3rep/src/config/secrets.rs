//! The second line of defence against secrets in messages.
//!
//! Our own messages never quote a value. Messages made elsewhere (a driver's checks, a URL parser) are not
//! supposed to, and are searched before they are told.

use super::node::{Kind, Node};

/// Texts that no message may hold.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Everything that came from the environment, and in the tree: values under keys that sound secret, and
    /// the credentials of URLs.
    pub(super) fn new(from_env: Vec<String>, tree: &Node) -> Self {
        let mut secrets = Self(from_env);
        secrets.collect(tree, false);
        // A secret that holds another one goes first.
        secrets.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.0.dedup();
        secrets
    }

    fn collect(&mut self, node: &Node, is_secret: bool) {
        match &node.kind {
            Kind::Text(text) => {
                if is_secret {
                    self.0.push(text.clone());
                }
                self.url(text);
            }
            Kind::Int(_) | Kind::Float(_) if is_secret => self.0.push(node.to_json().to_string()),
            Kind::List(items) => {
                for item in items {
                    self.collect(item, is_secret);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    self.collect(&entry.value, is_secret || sounds_secret(&entry.key));
                }
            }
            _ => {}
        }
    }

    fn url(&mut self, text: &str) {
        let Some((_, rest)) = text.split_once("://") else { return };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // A password may hold a '/', so the last '@' of the whole text counts too.
        for part in [authority, rest] {
            if let Some((user_info, _)) = part.rsplit_once('@') {
                self.0.push(user_info.to_owned());
                if let Some((user, password)) = user_info.split_once(':') {
                    self.0.extend([user.to_owned(), password.to_owned()]);
                }
            }
        }
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        for (key, value) in query.split(['&', '#']).filter_map(|pair| pair.split_once('=')) {
            if sounds_secret(key) {
                self.0.push(value.to_owned());
            }
        }
    }

    /// The text with every secret replaced.
    pub(crate) fn scrub(&self, text: &str) -> String {
        // Shorter ones ("1", "on") would replace half of every message and protect nothing.
        let long_enough = self.0.iter().filter(|secret| secret.len() >= 3);
        long_enough.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let parts =
        ["pass", "pwd", "secret", "token", "credential", "auth", "apikey", "api_key", "accesskey", "private"];
    parts.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Place;

    #[test]
    fn credentials_are_found_in_urls_and_under_keys_that_sound_secret() {
        let text = |text: &str| Node::new(Place::START, Kind::Text(text.into()));
        let entry =
            |key: &str, value| crate::config::node::Entry { key: key.into(), place: Place::START, value };
        let tree = Node::new(
            Place::START,
            Kind::Map(vec![
                entry("url", text("postgres://bob:pa/ss@host/db?authToken=tok-1&x=plain")),
                entry("authToken", text("tok-2")),
                entry("headers", text("plain")),
            ]),
        );
        let secrets = Secrets::new(vec!["from env".into()], &tree);
        let scrubbed = secrets.scrub("bob pa/ss tok-1 tok-2 from env plain");
        assert_eq!(scrubbed, "*** *** *** *** *** plain");
    }
}
