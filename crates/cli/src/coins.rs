//! Amounts as people write them.

use isobit_ledger::COIN;

/// `1.5 ISO` of 1.5 * 10^18 base units; all digits that matter.
pub(crate) fn text(amount: u128) -> String {
    let (whole, part) = (amount / COIN, amount % COIN);
    let whole = crate::output::thousands(u64::try_from(whole).unwrap_or(u64::MAX));
    let part = format!("{part:018}");
    match part.trim_end_matches('0') {
        "" => format!("{whole} ISO"),
        digits => format!("{whole}.{digits} ISO"),
    }
}

/// The same to seven digits after the point, for tables.
pub(crate) fn short(amount: u128) -> String {
    const STEP: u128 = COIN / 10_000_000;
    text((amount.saturating_add(STEP / 2)) / STEP * STEP)
}

/// Reads `1.5` (coins) as base units.
pub(crate) fn parse(text: &str) -> Result<u128, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 18 {
        return Err("give coins as a decimal number with at most 18 digits after the point, e.g. 1.5".into());
    }
    let part: u128 = format!("{part:0<18}").parse().expect("18 digits");
    let whole: Option<u128> = whole.parse().ok();
    whole.and_then(|w| w.checked_mul(COIN)?.checked_add(part)).ok_or_else(|| "too many coins".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip() {
        for (amount, s) in
            [(0, "0 ISO"), (COIN, "1 ISO"), (COIN * 3 / 2, "1.5 ISO"), (1, "0.000000000000000001 ISO")]
        {
            assert_eq!(text(amount), s);
            assert_eq!(parse(s.trim_end_matches(" ISO")), Ok(amount));
        }
        assert_eq!(short(COIN + 1), "1 ISO");
        assert_eq!(short(COIN / 3), "0.3333333 ISO");
        assert_eq!(text(1_234 * COIN), "1,234 ISO");
        for bad in ["", ".5", "-1", "1e3", "1.0000000000000000001", "999999999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
