//! Money: exact, in whole billionths, never below zero, never past what the wire can say.

use std::fmt;

use mesh_runtime::database::Fault;

/// Billionths in a unit.
const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// The largest amount of the wire: `i64::MAX` units and 999 999 999 nanos.
const NANOS_MAX: i128 = (i64::MAX as i128) * NANOS_PER_UNIT + (NANOS_PER_UNIT - 1);

/// An ISO 4217 code. Its letters are checked, not whether a country uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Currency([u8; 3]);

impl Currency {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err("must be three letters A-Z, as of ISO 4217".into()),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

/// An amount of some currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount {
    /// 0 to [`NANOS_MAX`].
    nanos: i128,
}

impl Amount {
    pub(crate) const ZERO: Self = Self { nanos: 0 };

    /// Units and billionths, as the wire and the database have them.
    pub(crate) fn new(units: i64, nanos: i32) -> Result<Self, Fault> {
        let nanos = i128::from(nanos);
        if units < 0 || !(0..NANOS_PER_UNIT).contains(&nanos) {
            return Err("must have units of 0 or more and nanos of 0 to 999999999".into());
        }
        Ok(Self { nanos: i128::from(units) * NANOS_PER_UNIT + nanos })
    }

    /// `None` where the sum is past the largest amount.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        Self::within(self.nanos.checked_add(other.nanos)?)
    }

    /// `None` where the product is past the largest amount.
    pub(crate) fn times(self, count: u32) -> Option<Self> {
        Self::within(self.nanos.checked_mul(i128::from(count))?)
    }

    fn within(nanos: i128) -> Option<Self> {
        (nanos <= NANOS_MAX).then_some(Self { nanos })
    }

    /// Whole units.
    pub(crate) fn units(self) -> i64 {
        i64::try_from(self.nanos / NANOS_PER_UNIT).expect("NANOS_MAX bounds it")
    }

    /// Billionths beyond the units.
    pub(crate) fn nanos(self) -> i32 {
        i32::try_from(self.nanos % NANOS_PER_UNIT).expect("below a billion")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Amount, Currency};

    const MAX: Amount = Amount { nanos: super::NANOS_MAX };

    fn amount() -> impl Strategy<Value = Amount> {
        (0..=i64::MAX, 0..1_000_000_000_i32).prop_map(|(units, nanos)| Amount::new(units, nanos).unwrap())
    }

    fn small() -> impl Strategy<Value = Amount> {
        (0..1_000_000_000_i64, 0..1_000_000_000_i32).prop_map(|(units, nanos)| Amount::new(units, nanos).unwrap())
    }

    proptest! {
        #[test]
        fn an_amount_is_what_its_parts_say(amount in amount()) {
            prop_assert_eq!(Amount::new(amount.units(), amount.nanos()).unwrap(), amount);
        }

        #[test]
        fn sums_do_not_depend_on_the_order(a in amount(), b in amount(), c in small()) {
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(Amount::ZERO), Some(a));
            let left = a.plus(b).and_then(|sum| sum.plus(c));
            let right = b.plus(c).and_then(|sum| a.plus(sum));
            prop_assert_eq!(left, right);
        }

        #[test]
        fn a_product_is_a_repeated_sum(price in small(), count in 0_u32..50) {
            let sum = (0..count).try_fold(Amount::ZERO, |sum, _| sum.plus(price));
            prop_assert_eq!(price.times(count), sum);
        }

        #[test]
        fn what_does_not_fit_is_none_and_never_wraps(a in amount(), count in 1_u32..) {
            match a.times(count) {
                Some(product) => prop_assert!(product >= a && product <= MAX),
                None => prop_assert!(a.nanos > super::NANOS_MAX / i128::from(count)),
            }
        }
    }

    #[test]
    fn the_largest_amount_fits_and_the_next_does_not() {
        assert_eq!(Amount::new(i64::MAX, 999_999_999), Ok(MAX));
        assert_eq!((MAX.units(), MAX.nanos()), (i64::MAX, 999_999_999));
        assert_eq!(MAX.plus(Amount::new(0, 1).unwrap()), None);
        assert_eq!(MAX.times(2), None);
        assert_eq!(MAX.times(u32::MAX), None);
        for (units, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert!(Amount::new(units, nanos).is_err());
        }
    }

    #[test]
    fn a_currency_has_three_capitals() {
        assert_eq!(Currency::parse("EUR").unwrap().to_string(), "EUR");
        for refused in ["", "EU", "EURO", "eur", "E1R", "€"] {
            assert!(Currency::parse(refused).is_err(), "{refused:?}");
        }
    }
}
