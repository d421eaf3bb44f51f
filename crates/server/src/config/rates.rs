//! Parses rates of token buckets (`limits.*`): `"50/s burst 200"`, `"2MiB/s burst 8MiB"`,
//! `"20/5s"`, `"off"`.
//!
//! Invariant: an invalid text is a mistake and never disables a limit.

use engine::limits::BUCKET_FILL_MS_MAX;
use engine::rates::{Bucket, Rate, Rates};

use super::mistakes::KeyedMistakes;
use super::options::LimitsSection;
use super::schema::Setting;

/// Resolves the rate of every bucket. Default bursts are raised so that a client can subscribe to
/// `channel_limit` channels at once when it reconnects.
pub(super) fn resolve_rates(
    limits: &LimitsSection,
    channel_limit: usize,
    mistakes: &mut KeyedMistakes,
) -> Rates {
    let mut rates = Vec::with_capacity(Bucket::ALL.len());
    for bucket in Bucket::ALL {
        let written = setting(limits, *bucket);
        let rate = parse(*bucket, written).unwrap_or_else(|text| {
            mistakes.push(written.fault(text));
            None
        });
        rates.push(match written.is_written {
            true => rate,
            false => rate.map(|rate| with_burst_for(*bucket, rate, channel_limit)),
        });
    }
    Rates::new(|bucket| rates[bucket as usize])
}

fn setting(limits: &LimitsSection, bucket: Bucket) -> &Setting<String> {
    let LimitsSection { connection, user, address, api_key } = limits;
    match bucket {
        Bucket::ConnectionCommands => &connection.commands,
        Bucket::ConnectionPublishes => &connection.publishes,
        Bucket::ConnectionSubscribes => &connection.subscribes,
        Bucket::ConnectionNewChannels => &connection.new_channels,
        Bucket::ConnectionBytes => &connection.bytes,
        Bucket::ConnectionRefusals => &connection.refusals,
        Bucket::UserCommands => &user.commands,
        Bucket::UserPublishes => &user.publishes,
        Bucket::UserSubscribes => &user.subscribes,
        Bucket::UserConnects => &user.connects,
        Bucket::AddressHandshakes => &address.handshakes,
        Bucket::AddressConnects => &address.connects,
        Bucket::ApiKeyRequests => &api_key.requests,
    }
}

/// Raises the burst of a default rate for clients with many channels.
fn with_burst_for(bucket: Bucket, rate: Rate, channel_limit: usize) -> Rate {
    let least = match bucket {
        Bucket::ConnectionSubscribes | Bucket::ConnectionNewChannels => 2 * channel_limit,
        Bucket::ConnectionCommands => 4 * channel_limit,
        _ => 0,
    };
    let least = u32::try_from(least).unwrap_or(u32::MAX).min(LEVELS_MAX);
    let raised = Rate::new(rate.amount(), rate.window_ms(), rate.burst().max(least));
    raised.unwrap_or(rate)
}

/// Parses a rate; `None` means no limit.
///
/// # Errors
/// The text is not a rate, or the rate is out of range.
fn parse(bucket: Bucket, text: &str) -> Result<Option<Rate>, String> {
    if matches!(text.trim(), "" | "off") {
        return Ok(None);
    }
    let expected = || {
        let examples = match bucket {
            Bucket::ConnectionBytes => "\"2MiB/s burst 8MiB\"",
            _ => "\"50/s burst 200\", \"600/m\", \"20/5s burst 40\"",
        };
        format!("expected a rate such as {examples}, or \"off\", not {text:?}")
    };
    let mut words = text.split_whitespace();
    let (amount, window) =
        words.next().and_then(|rate| rate.split_once('/')).ok_or_else(expected)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => amount,
        (Some("burst"), Some(burst), None) => burst,
        _ => return Err(expected()),
    };
    let amount = count(bucket, amount).ok_or_else(expected)?;
    let burst = count(bucket, burst).ok_or_else(expected)?;
    let window_ms = window_ms(window).ok_or_else(expected)?;
    if is_of_levels(bucket) && burst > LEVELS_MAX {
        return Err(format!("burst must be at most {LEVELS_MAX}, not {burst}"));
    }
    let too_slow = || {
        let days = BUCKET_FILL_MS_MAX / (24 * 3_600_000);
        format!(
            "{text:?} is out of range: numbers must be from 1 to 1,000,000,000, and the burst must refill within {days} days"
        )
    };
    Rate::new(amount, window_ms, burst).map(Some).ok_or_else(too_slow)
}

/// Maximum burst of buckets per connection, whose levels are stored in 16 bits.
const LEVELS_MAX: u32 = 65_535;

fn is_of_levels(bucket: Bucket) -> bool {
    bucket != Bucket::ConnectionBytes && bucket.name().starts_with("connection.")
}

/// Parses a number. For bytes, a unit may follow.
fn count(bucket: Bucket, text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u32 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "" => 1,
        unit if bucket != Bucket::ConnectionBytes || unit.is_empty() => return None,
        "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Parses a time such as `s`, `5s` or `h` into milliseconds.
fn window_ms(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = if number.is_empty() { 1 } else { number.parse().ok()? };
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Bucket = Bucket::ConnectionPublishes;

    #[test]
    fn rates_are_parsed() {
        for (bucket, text, expected) in [
            (COUNT, "50/s burst 200", Rate::new(50, 1_000, 200)),
            (COUNT, "  600/m ", Rate::new(600, 60_000, 600)),
            (COUNT, "20/5s burst 40", Rate::new(20, 5_000, 40)),
            (COUNT, "1/h", Rate::new(1, 3_600_000, 1)),
            (COUNT, "off", None),
            (COUNT, "", None),
            (Bucket::ConnectionBytes, "2MiB/s burst 8MiB", Rate::new(2 << 20, 1_000, 8 << 20)),
            (Bucket::ConnectionBytes, "500KB/s", Rate::new(500_000, 1_000, 500_000)),
            (Bucket::ApiKeyRequests, "50000/s burst 100000", Rate::new(50_000, 1_000, 100_000)),
        ] {
            assert_eq!(parse(bucket, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn invalid_rates_are_refused_with_the_reason() {
        for (text, expected) in [
            ("50", "expected a rate"),
            ("50/s burst", "expected a rate"),
            ("50/s 200", "expected a rate"),
            ("50/s burst 200 more", "expected a rate"),
            ("-5/s", "expected a rate"),
            ("50/d", "expected a rate"),
            ("50/", "expected a rate"),
            ("50/0s", "expected a rate"),
            ("50/é", "expected a rate"),
            ("2MiB/s", "expected a rate"),
            ("0/s", "from 1 to"),
            ("50/s burst 0", "from 1 to"),
            ("50/s burst 70000", "at most 65535"),
            ("1/h burst 60000", "within 7 days"),
            ("99999999999/s", "expected a rate"),
        ] {
            let error = parse(COUNT, text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(parse(Bucket::ConnectionBytes, "9999MiB/s").is_err());
    }
}
