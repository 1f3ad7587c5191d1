//! Connection strings, with the words that libpq and node-postgres know.

use std::error::Error as _;

use s3rep_core::{Error, Result};
use tokio_postgres::{Config, config::SslMode};

use crate::{config::invalid, tls::Trust};

/// What the client library has no words for: how to encrypt, and whether anyone is trusted.
const MODES: [(&str, SslMode, bool); 5] = [
    ("sslmode=verify-full", SslMode::Require, false),
    ("sslmode=verify-ca", SslMode::Require, false),
    ("sslmode=no-verify", SslMode::Require, true),
    ("ssl=true", SslMode::Require, false),
    ("ssl=false", SslMode::Disable, false),
];

/// Reads a connection string.
pub(crate) fn parse(text: &str) -> Result<(Config, Trust)> {
    let (head, options, separator) = split(text);
    let mode = |option: &str| MODES.iter().find(|(words, ..)| *words == option);
    let options: Vec<_> = options.split(separator).collect();
    let others: Vec<_> = options.iter().filter(|option| mode(option).is_none()).copied().collect();
    let rest = format!("{head}{}", others.join(&separator.to_string()));
    let mut config: Config = rest.parse().map_err(|error| refusal(text, &error))?;
    let trust = match options.iter().rev().find_map(|option| mode(option)) {
        Some((_, mode, anyone)) => {
            config.ssl_mode(*mode);
            Trust::of(*anyone)
        }
        // `prefer` encrypts when it can and proves nothing, as PostgreSQL's own clients do.
        None => Trust::of(config.get_ssl_mode() == SslMode::Prefer),
    };
    Ok((config, trust))
}

/// What stands before the options, the options, and what stands between them.
fn split(text: &str) -> (&str, &str, char) {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        // What is quoted may look like an option.
        return if text.contains(['\'', '\\']) { (text, "", ' ') } else { ("", text, ' ') };
    }
    let host = text.find('@').unwrap_or(0);
    match text[host..].find('?') {
        Some(place) => {
            let (head, options) = text.split_at(host + place + 1);
            (head, options, '&')
        }
        None => (text, "", '&'),
    }
}

/// The parser's message names the option, which may be a part of a password that was not quoted.
fn refusal(text: &str, error: &tokio_postgres::Error) -> Error {
    let (_, options, _) = split(text);
    let may_hide =
        text.contains(['\'', '\\']) || text.matches('@').count() > 1 || options.contains("password");
    let reason = error.source().map(|reason| reason.to_string().replace('`', "'")).filter(|_| !may_hide);
    match reason {
        Some(reason) if reason.starts_with("unknown option '") => invalid("connectionString", reason)
            .with_advice(
                "leave it out; `ssl`, `pool` and others are options of their own, beside the string",
            ),
        Some(reason) if reason.starts_with("invalid value for option '") => {
            invalid("connectionString", reason)
        }
        _ => invalid("connectionString", "it is no connection string"),
    }
}

/// The same with another host or port: the client library would add them to those of the string.
pub(crate) fn moved(from: &Config, host: Option<&str>, port: Option<u16>) -> Config {
    if host.is_none() && port.is_none() {
        return from.clone();
    }
    let mut to = without_place(from);
    match host {
        Some(host) => {
            to.host(host);
            // Several ports belong to the hosts that were left behind.
            if let (None, [port]) = (port, from.get_ports()) {
                to.port(*port);
            }
        }
        None => {
            add_hosts(from, &mut to);
        }
    }
    if let Some(port) = port {
        to.port(port);
    }
    to
}

fn add_hosts(from: &Config, to: &mut Config) {
    use tokio_postgres::config::Host;
    for host in from.get_hosts() {
        match host {
            Host::Tcp(name) => to.host(name),
            Host::Unix(path) => to.host_path(path),
        };
    }
    for address in from.get_hostaddrs() {
        to.hostaddr(*address);
    }
}

/// Everything but hosts and ports.
fn without_place(from: &Config) -> Config {
    let mut to = Config::new();
    to.ssl_mode(from.get_ssl_mode())
        .ssl_negotiation(from.get_ssl_negotiation())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle())
        .target_session_attrs(from.get_target_session_attrs())
        .channel_binding(from.get_channel_binding())
        .load_balance_hosts(from.get_load_balance_hosts());
    from.get_user().map(|user| to.user(user));
    from.get_password().map(|password| to.password(password));
    from.get_dbname().map(|name| to.dbname(name));
    from.get_options().map(|options| to.options(options));
    from.get_application_name().map(|name| to.application_name(name));
    from.get_connect_timeout().map(|timeout| to.connect_timeout(*timeout));
    from.get_tcp_user_timeout().map(|timeout| to.tcp_user_timeout(*timeout));
    from.get_keepalives_interval().map(|interval| to.keepalives_interval(interval));
    from.get_keepalives_retries().map(|retries| to.keepalives_retries(retries));
    to
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn options_take_the_place_of_hosts_and_ports() {
        let text = "postgresql://me:hunter2@a:1,b:2/x?application_name=y&connect_timeout=3&keepalives=0\
                    &target_session_attrs=read-write&options=-c%20x%3Dy&keepalives_retries=4&tcp_user_timeout=5\
                    &channel_binding=disable&load_balance_hosts=random&keepalives_interval=6&keepalives_idle=7";
        let (config, _) = parse(text).unwrap();
        let tcp = |name: &str| Host::Tcp(name.to_owned());
        assert_eq!(moved(&config, None, None), config);
        for (host, port, hosts, ports) in [
            (Some("c"), None, vec![tcp("c")], vec![]),
            (Some("c"), Some(9), vec![tcp("c")], vec![9]),
            (None, Some(9), vec![tcp("a"), tcp("b")], vec![9]),
        ] {
            let moved = moved(&config, host, port);
            assert_eq!((moved.get_hosts(), moved.get_ports()), (&*hosts, &*ports));
            assert_eq!(without_place(&moved), without_place(&config));
            let mut back = without_place(&moved);
            add_hosts(&config, &mut back);
            config.get_ports().iter().for_each(|port| drop(back.port(*port).clone()));
            assert_eq!(back, config, "everything else is as before");
        }
        let (config, _) = parse("host=a port=5 user=me").unwrap();
        assert_eq!(moved(&config, Some("c"), None).get_ports(), [5]);
    }

    #[test]
    fn modes_of_other_clients_are_known() {
        for (option, mode, anyone) in [
            ("sslmode=verify-full", SslMode::Require, false),
            ("sslmode=verify-ca", SslMode::Require, false),
            ("sslmode=no-verify", SslMode::Require, true),
            ("sslmode=require", SslMode::Require, false),
            ("sslmode=prefer", SslMode::Prefer, true),
            ("sslmode=disable", SslMode::Disable, false),
            ("ssl=true", SslMode::Require, false),
            ("ssl=false", SslMode::Disable, false),
        ] {
            for text in [
                format!("postgres://me:p?ssl=true@h/x?{option}&application_name=a"),
                format!("postgres://me@h/x?application_name=a&{option}"),
                format!("postgres://me@h/x?{option}"),
                format!("host=h user=me {option} application_name=a"),
            ] {
                let (config, trust) = parse(&text).unwrap();
                assert_eq!((config.get_ssl_mode(), trust.is_of_anyone()), (mode, anyone), "{text}");
                assert_eq!(config.get_user(), Some("me"), "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_option_is_named_but_no_secret() {
        for (text, name) in [
            ("postgres://me:hunter2@h/x?sslrootcert=/hunter2", Some("sslrootcert")),
            ("postgres://me:hunter2@h/x?ssl=hunter2", Some("ssl")),
            ("postgres://me:hunter2@h/x?sslmode=hunter2", Some("sslmode")),
            ("host=h schema=hunter2", Some("schema")),
            ("host=h password=x hunter2=y", None),
            ("host=h password=\\x hunter2=y", None),
            ("postgres://h/x?password=x&hunter2=y", None),
            ("postgres://me:x@y?hunter2=z@h/x", None),
        ] {
            let report = format!("{:?}", parse(text).unwrap_err());
            assert!(name.is_none_or(|name| report.contains(&format!("option '{name}'"))), "{report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
    }
}
