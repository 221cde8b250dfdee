//! Amounts of resources.

use std::collections::BTreeMap;

/// Amounts by resource: `cpu` in thousandths, everything else in whole units, as the scheduler counts.
pub type Amounts = BTreeMap<String, i64>;

/// The resource that is counted in thousandths.
pub const CPU: &str = "cpu";
/// How many pods a node takes.
pub const PODS: &str = "pods";

/// Reads a quantity of a resource, rounded up; what is larger than can be counted is the largest amount. `None` for what
/// is no quantity. Source: apimachinery `pkg/api/resource/quantity.go`.
pub fn amount(resource: &str, quantity: &str) -> Option<i64> {
    let (number, scale) = split(quantity.trim())?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, part].concat();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousand = if resource == CPU { 1000 } else { 1 };
    let fraction = i32::try_from(part.len()).ok()?;
    let value = count(
        digits.trim_start_matches('0'),
        scale.exponent.checked_sub(fraction)?,
        scale.factor,
        thousand,
    );
    Some(match (negative, value) {
        (false, value) => value,
        (true, 0) => 0,
        (true, value) => -value,
    })
}

/// `digits * 10^exponent * factor * thousand`, rounded up, at most the largest amount.
fn count(digits: &str, exponent: i32, factor: i128, thousand: i128) -> i64 {
    const LONGEST: usize = 15;
    if digits.is_empty() {
        return 0;
    }
    // Of a number with more digits than count, the rest can only round it up.
    let kept = digits.get(..LONGEST).unwrap_or(digits);
    let cut = digits.len() - kept.len();
    let exponent = i32::try_from(cut).ok().and_then(|cut| exponent.checked_add(cut));
    let Some(exponent) = exponent else {
        return i64::MAX;
    };
    let number = kept
        .parse::<i128>()
        .unwrap_or(i128::MAX)
        .saturating_add(i128::from(cut > 0));
    let number = number.saturating_mul(factor).saturating_mul(thousand);
    let power = |exponent: u32| 10_i128.checked_pow(exponent);
    let value = match u32::try_from(exponent) {
        Ok(exponent) => power(exponent).map_or(i128::MAX, |p| number.saturating_mul(p)),
        Err(_) => match power(exponent.unsigned_abs()) {
            Some(p) => number / p + i128::from(number % p != 0),
            None => 1,
        },
    };
    i64::try_from(value).unwrap_or(i64::MAX)
}

struct Scale {
    exponent: i32,
    factor: i128,
}

fn split(quantity: &str) -> Option<(&str, Scale)> {
    const BINARY: [(&str, u32); 6] = [
        ("Ki", 10),
        ("Mi", 20),
        ("Gi", 30),
        ("Ti", 40),
        ("Pi", 50),
        ("Ei", 60),
    ];
    const DECIMAL: [(&str, i32); 9] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    for (suffix, bits) in BINARY {
        if let Some(number) = quantity.strip_suffix(suffix) {
            let factor = 1_i128 << bits;
            return Some((number, Scale { exponent: 0, factor }));
        }
    }
    for (suffix, exponent) in DECIMAL {
        if let Some(number) = quantity.strip_suffix(suffix) {
            return Some((number, Scale { exponent, factor: 1 }));
        }
    }
    let (number, exponent) = match quantity.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse().ok()?),
        None => (quantity, 0),
    };
    Some((number, Scale { exponent, factor: 1 }))
}

/// Adds amounts to others.
pub fn sum(to: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        let known = to.entry(resource.clone()).or_default();
        *known = known.saturating_add(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_the_scheduler_reads_them() {
        let cases = [
            ("cpu", "2", Some(2000)),
            ("cpu", "250m", Some(250)),
            ("cpu", "0.0001", Some(1)),
            ("cpu", "1n", Some(1)),
            ("cpu", "1.5", Some(1500)),
            ("cpu", "1k", Some(1_000_000)),
            ("memory", "1Gi", Some(1 << 30)),
            ("memory", "1.5Ki", Some(1536)),
            ("memory", "128974848", Some(128_974_848)),
            ("memory", "129e6", Some(129_000_000)),
            ("memory", "129E", Some(i64::MAX)),
            ("memory", "100m", Some(1)),
            ("memory", "0", Some(0)),
            ("memory", "+5", Some(5)),
            ("memory", "-5", Some(-5)),
            ("memory", "1e-3", Some(1)),
            ("memory", "1e400", Some(i64::MAX)),
            (
                "memory",
                "0.00000000000000000000000000000000000000000000000001",
                Some(1),
            ),
            ("memory", "12345678901234567890", Some(i64::MAX)),
            ("pods", "3k", Some(3000)),
            ("pods", "", None),
            ("pods", "many", None),
            ("pods", ".", None),
            ("pods", "1.2.3", None),
            ("pods", "1ee", None),
        ];
        for (resource, quantity, expected) in cases {
            assert_eq!(amount(resource, quantity), expected, "{resource} {quantity}");
        }
    }
}
