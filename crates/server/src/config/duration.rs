//! Durations as in Go: one or more numbers with a unit, such as `1m30s`, `250ms` or `1.5h`.

/// Parses a duration into milliseconds; `None` if the text is not a duration.
pub fn parse_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    // Go's durations may have a sign.
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_length = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit_ms = match &rest[..unit_length] {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        total += number * unit_ms;
        rest = &rest[unit_length..];
    }
    // The maximum of a century keeps sums of times far from overflow. A positive duration below
    // one millisecond is rounded up, because 0 often means "off".
    (total <= 3.2e12).then_some(if total > 0.0 { total.max(1.0) as u64 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::parse_ms;

    #[test]
    fn reads_units_and_refuses_the_rest() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("720h", Some(2_592_000_000)),
            ("250ms", Some(250)),
            ("24h0m0s", Some(86_400_000)),
            ("1500us", Some(1)),
            ("2µs", Some(1)),
            ("+1m", Some(60_000)),
            ("", None),
            ("+", None),
            ("++1s", None),
            ("10", None),
            ("s", None),
            ("10 s", None),
            ("-1s", None),
            ("10d", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_ms(text), expected, "{text}");
        }
    }
}
