//! Which hosts a cluster's metadata may send us to. Whoever answers at a bootstrap address can name any
//! host and port as a broker, of this machine too; a list of what brokers may be called keeps connections
//! from going anywhere else.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Names and addresses, each as it is or, with `*.` before it, all below a domain. An empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(pub Vec<String>);

impl AllowedHosts {
    /// Whether metadata may name this host.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|allowed| matches(allowed, host))
    }
}

fn matches(allowed: &str, host: &str) -> bool {
    if let (Ok(allowed), Ok(host)) = (allowed.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return allowed == host;
    }
    let Some(domain) = allowed
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
    else {
        return allowed.eq_ignore_ascii_case(host);
    };
    let before = host.len().checked_sub(domain.len());
    let tail = before.and_then(|at| host.is_char_boundary(at).then(|| host.split_at(at)));
    tail.is_some_and(|(name, end)| !name.is_empty() && end.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names whatever their case, addresses however they are written, and what is below a domain; neither the
    /// domain itself nor what merely ends like it.
    #[test]
    fn h10_a_list_of_hosts_allows_those_and_no_others() {
        let list = ["kafka-1.example", "*.brokers.example", "10.0.0.1", "::1"];
        let list = AllowedHosts(list.map(String::from).to_vec());
        for host in [
            "kafka-1.example",
            "KAFKA-1.Example",
            "a.brokers.example",
            "b.a.Brokers.example",
            "10.0.0.1",
            "0:0:0:0:0:0:0:1",
        ] {
            assert!(list.allows(host), "{host}");
            assert!(AllowedHosts::default().allows(host));
        }
        for host in [
            "",
            "kafka-1.example.evil",
            "xkafka-1.example",
            "brokers.example",
            ".brokers.example",
            "evilbrokers.example",
            "ä.brokers.exampl",
            "10.0.0.11",
            "::2",
        ] {
            assert!(!list.allows(host), "{host}");
        }
    }
}
