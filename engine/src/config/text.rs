//! Values as people write them: amounts with units, rules of retrying, addresses. An error says what is
//! allowed.

use std::str::FromStr;
use std::time::Duration;

use ringpost_core::retry::{Backoff, Budget, Class, Rule};

/// `50%`.
pub(super) fn percent(text: &str) -> Result<u8, String> {
    const ALLOWED: &str = "0% to 100%";
    number(text.strip_suffix('%').unwrap_or("").trim(), ALLOWED)
}

pub(super) fn number<N: FromStr>(text: &str, allowed: &str) -> Result<N, String> {
    text.parse().map_err(|_| allowed.into())
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    number(text, "true or false")
}

/// `5ms`, `500us` or `500µs`, `1.5s`, `2m`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a number with us, ms, s or m, such as 5ms";
    let unit_at = text.find(char::is_alphabetic).unwrap_or(text.len());
    let (amount, unit) = text.split_at(unit_at);
    let amount: f64 = number(amount.trim(), ALLOWED)?;
    let seconds = match unit {
        // The micro sign, or the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => amount / 1e6,
        "ms" => amount / 1e3,
        "s" => amount,
        "m" => amount * 60.0,
        "" if amount == 0.0 => 0.0,
        _ => return Err(ALLOWED.into()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| ALLOWED.into())
}

/// `64MiB`, `16KiB`, `100B`; a bare number is bytes.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    const ALLOWED: &str = "a number with B, KiB, MiB or GiB, such as 64MiB";
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (amount, unit) = text.split_at(unit_at);
    let amount: usize = number(amount.trim(), ALLOWED)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(ALLOWED.into()),
    };
    amount.checked_mul(1 << shift).ok_or_else(|| ALLOWED.into())
}

/// `connection=5:50ms:2s, corrupt=never`; or `none`.
pub(super) fn retry_rules(
    text: &str,
    usual: Backoff,
) -> Result<[Option<Rule>; Class::ALL.len()], String> {
    let allowed = || {
        let classes = Class::ALL.map(Class::name).join(", ");
        format!(
            "none, or with commas CLASS=never or CLASS=ATTEMPTS[:BACKOFF[:MAX]], such as \
             connection=5:50ms:2s, where ATTEMPTS may be unlimited and CLASS is one of {classes}"
        )
    };
    let mut rules = [None; Class::ALL.len()];
    if text == "none" {
        return Ok(rules);
    }
    for part in text.split(',') {
        let (name, rule) = part.split_once('=').ok_or_else(allowed)?;
        let class = Class::ALL.into_iter().find(|c| c.name() == name.trim());
        let class = class.ok_or_else(allowed)?;
        let mut words = rule.split(':').map(str::trim);
        let rule = match words.next() {
            Some("never") => Rule::GiveUp,
            Some(attempts) => {
                let attempts_max = match attempts {
                    "unlimited" => Some(u32::MAX),
                    _ => Some(attempts.parse().map_err(|_| allowed())?),
                };
                let initial = words.next().map(duration).transpose()?;
                let max = words.next().map(duration).transpose()?;
                let backoff = initial.map(|initial| Backoff {
                    initial,
                    max: max.unwrap_or(initial),
                    ..usual
                });
                Rule::Retry {
                    attempts_max,
                    backoff,
                }
            }
            None => return Err(allowed()),
        };
        if words.next().is_some() || rules[class as usize].replace(rule).is_some() {
            return Err(allowed());
        }
    }
    Ok(rules)
}

/// `20%:10:100`; or `off`.
pub(super) fn retry_budget(text: &str) -> Result<Option<Budget>, String> {
    const ALLOWED: &str = "off, or PERCENT%[:PER_SECOND[:BURST]], such as 20%:10:100";
    if text == "off" {
        return Ok(None);
    }
    let mut budget = Budget::default();
    let mut words = text.split(':').map(str::trim);
    let percent = words.next().and_then(|word| word.strip_suffix('%'));
    budget.percent_of_successes = number(percent.ok_or(ALLOWED)?.trim_end(), ALLOWED)?;
    for field in [&mut budget.per_second, &mut budget.burst] {
        if let Some(word) = words.next() {
            *field = number(word, ALLOWED)?;
        }
    }
    if words.next().is_some() {
        return Err(ALLOWED.into());
    }
    Ok(Some(budget))
}

/// What [`is_host`] takes.
pub(super) const HOSTS: &str =
    "all, or names and addresses with commas, such as kafka-1,*.kafka.example,::1";

/// Whether this can be a host of `allowed_hosts`.
pub(super) fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let fits = |c: char| c.is_alphanumeric() || ".-_:".contains(c);
    !name.is_empty() && name.chars().all(fits)
}

/// `host:port` with commas; IPv6 addresses in brackets.
pub(super) fn parse_bootstrap(text: &str) -> Result<Vec<(String, u16)>, String> {
    let allowed =
        || String::from("host:port, several with commas, such as kafka-1:9092,[::1]:9092");
    text.split(',')
        .map(str::trim)
        .map(|place| {
            let (host, port) = place.rsplit_once(':').ok_or_else(allowed)?;
            let host = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            let port: u16 = port.parse().map_err(|_| allowed())?;
            if host.is_empty() || port == 0 || host.contains(char::is_whitespace) {
                return Err(allowed());
            }
            Ok((host.to_owned(), port))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("500\u{b5}s"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("2 \u{3bc}s"), Ok(Duration::from_micros(2)));
        assert!(duration("5\u{fc}s").is_err(), "no unit, and no panic");
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("5").is_err(), "a bare number could mean anything");
        assert!(duration("-1s").is_err());
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert!(bytes("1kb").is_err());
        assert!(bytes("99999999999999999999GiB").is_err());
    }

    #[test]
    fn bootstrap_lists() {
        let list = parse_bootstrap("a:1, [::1]:2").unwrap();
        assert_eq!(list, [("a".into(), 1), ("::1".into(), 2)]);
        for bad in ["", "a", "a:", ":1", "a:0", "a:70000", "a:1,,b:2", "a b:1"] {
            assert!(parse_bootstrap(bad).is_err(), "{bad}");
        }
    }
}
