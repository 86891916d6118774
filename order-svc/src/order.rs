//! Orders: the values an order is made of, valid by construction, and how it may move.

use std::collections::HashSet;
use std::fmt;

use mesh_runtime::database::{Etag, Fault, UnixMillis, is_token_byte};
use uuid::Uuid;

use crate::money::{Amount, Currency};

/// Most lines of an order: a page of 200 orders then stays within a message of some megabytes.
pub(crate) const ITEMS_MAX: usize = 100;
/// Longest code of a thing that is sold, in characters.
const SKU_CHARS_MAX: usize = 64;
/// Most of one thing in an order.
const QUANTITY_MAX: u32 = 1_000_000;

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderStatus {
    Pending,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
}

impl OrderStatus {
    pub(crate) const ALL: [Self; 5] = [Self::Pending, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];

    /// The arrows of the status machine.
    fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Paid | Self::Cancelled)
                | (Self::Paid, Self::Shipped | Self::Cancelled)
                | (Self::Shipped, Self::Delivered)
        )
    }

    /// Whether nothing is owed by either side: no money for which goods are due.
    fn is_settled(self) -> bool {
        matches!(self, Self::Pending | Self::Delivered | Self::Cancelled)
    }

    /// As it stands in the database and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Paid => "PAID",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that the status of an order does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IllegalStep {
    #[error("an order that is {from} cannot become {to}")]
    Move { from: OrderStatus, to: OrderStatus },
    #[error("the items of an order that is {0} cannot change")]
    Items(OrderStatus),
    #[error("an order that is {0} cannot be deleted")]
    Delete(OrderStatus),
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sku: Sku,
    pub(crate) quantity: Quantity,
    pub(crate) unit_price: Amount,
}

/// The code of a thing that is sold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sku(String);

impl Sku {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        match text.len() {
            0 => Err("is required".into()),
            1..=SKU_CHARS_MAX if text.bytes().all(is_token_byte) => Ok(Self(text.to_owned())),
            _ => Err(Fault(format!("must have at most {SKU_CHARS_MAX} characters of A-Z a-z 0-9 _ . : -"))),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity(u32);

impl Quantity {
    pub(crate) fn new(count: u32) -> Result<Self, Fault> {
        match count {
            1..=QUANTITY_MAX => Ok(Self(count)),
            _ => Err(Fault(format!("must be 1 to {QUANTITY_MAX}, not {count}"))),
        }
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// The lines of an order: at least one, each thing once, all in one currency, with a sum that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Items {
    currency: Currency,
    lines: Vec<Item>,
    total: Amount,
}

impl Items {
    pub(crate) fn new(currency: Currency, lines: Vec<Item>) -> Result<Self, Fault> {
        if !(1..=ITEMS_MAX).contains(&lines.len()) {
            return Err(Fault(format!("must have 1 to {ITEMS_MAX} entries, not {}", lines.len())));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = lines.iter().find(|line| !seen.insert(&line.sku)) {
            return Err(Fault(format!("must name each sku once, but name {} again", twice.sku.as_str())));
        }
        let total =
            lines.iter().try_fold(Amount::ZERO, |sum, line| sum.plus(line.unit_price.times(line.quantity.get())?));
        let total = total.ok_or("must not add up to more than 2^63 - 1 units")?;
        Ok(Self { currency, lines, total })
    }

    pub(crate) fn currency(&self) -> Currency {
        self.currency
    }

    pub(crate) fn lines(&self) -> &[Item] {
        &self.lines
    }

    /// Sum of quantity times unit price.
    pub(crate) fn total(&self) -> Amount {
        self.total
    }
}

/// What a user has bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) items: Items,
    pub(crate) status: OrderStatus,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
    /// Counts changes, from 1.
    pub(crate) version: i64,
}

/// What a caller wants changed; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) items: Option<Items>,
    pub(crate) status: Option<OrderStatus>,
}

impl Order {
    pub(crate) fn etag(&self) -> Etag {
        Etag::of_version(self.version)
    }

    /// The order after a change. Items are judged by the status before it: a change may fix the items and pay for them.
    pub(crate) fn changed(self, change: Change, now: UnixMillis) -> Result<Self, IllegalStep> {
        if change.items.is_some() && self.status != OrderStatus::Pending {
            return Err(IllegalStep::Items(self.status));
        }
        let status = match change.status {
            Some(to) if !self.status.may_become(to) => return Err(IllegalStep::Move { from: self.status, to }),
            next => next.unwrap_or(self.status),
        };
        Ok(Self {
            items: change.items.unwrap_or(self.items),
            status,
            // A calendar that was set back must not make a change older than the order.
            updated_at: now.max(self.created_at),
            version: self.version + 1,
            ..self
        })
    }

    /// Whether it may be deleted.
    pub(crate) fn require_settled(&self) -> Result<(), IllegalStep> {
        if self.status.is_settled() { Ok(()) } else { Err(IllegalStep::Delete(self.status)) }
    }
}

#[cfg(test)]
mod tests {
    use super::OrderStatus::{Cancelled, Delivered, Paid, Pending, Shipped};
    use super::{
        Amount, Change, Currency, ITEMS_MAX, IllegalStep, Item, Items, Order, OrderStatus, Quantity, Sku, UnixMillis,
        Uuid,
    };

    fn item(sku: &str, quantity: u32, units: i64, nanos: i32) -> Item {
        Item {
            sku: Sku::parse(sku).unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
            unit_price: Amount::new(units, nanos).unwrap(),
        }
    }

    fn items(lines: Vec<Item>) -> Result<Items, super::Fault> {
        Items::new(Currency::parse("EUR").unwrap(), lines)
    }

    fn order(status: OrderStatus) -> Order {
        Order {
            id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            items: items(vec![item("tea", 1, 4, 0)]).unwrap(),
            status,
            created_at: UnixMillis(1000),
            updated_at: UnixMillis(1000),
            version: 1,
        }
    }

    #[test]
    fn the_status_machine_is_this_table() {
        let legal = [(Pending, Paid), (Pending, Cancelled), (Paid, Shipped), (Paid, Cancelled), (Shipped, Delivered)];
        for from in OrderStatus::ALL {
            for to in OrderStatus::ALL {
                let moved = order(from).changed(Change { status: Some(to), items: None }, UnixMillis(2000));
                let expected = if legal.contains(&(from, to)) { Ok(to) } else { Err(IllegalStep::Move { from, to }) };
                assert_eq!(moved.map(|order| order.status), expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn only_a_pending_order_changes_its_items() {
        for status in OrderStatus::ALL {
            let new = items(vec![item("coffee", 2, 5, 0)]).unwrap();
            let changed = order(status).changed(Change { items: Some(new.clone()), status: None }, UnixMillis(2000));
            let expected = if status == Pending { Ok(new) } else { Err(IllegalStep::Items(status)) };
            assert_eq!(changed.map(|order| order.items), expected, "{status}");
        }
        let both = Change { items: Some(items(vec![item("coffee", 2, 5, 0)]).unwrap()), status: Some(Paid) };
        assert_eq!(order(Pending).changed(both, UnixMillis(2000)).unwrap().items.total(), Amount::new(10, 0).unwrap());
    }

    #[test]
    fn an_order_on_which_something_is_owed_stays() {
        for status in OrderStatus::ALL {
            let settled = matches!(status, Pending | Delivered | Cancelled);
            assert_eq!(order(status).require_settled().is_ok(), settled, "{status}");
        }
        assert_eq!(order(Shipped).require_settled(), Err(IllegalStep::Delete(Shipped)));
    }

    #[test]
    fn a_change_makes_a_new_etag_and_never_an_older_time() {
        let before = order(Pending);
        let after = before.clone().changed(Change { status: Some(Paid), items: None }, UnixMillis(500)).unwrap();
        assert_ne!(after.etag(), before.etag());
        assert_eq!(after.updated_at, UnixMillis(1000));
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines() {
        let items = items(vec![item("tea", 3, 4, 990_000_000), item("cup", 1, 0, 30_000_000)]).unwrap();
        assert_eq!(items.total(), Amount::new(15, 0).unwrap());
    }

    #[test]
    fn items_that_make_no_order_are_refused() {
        assert!(items(vec![]).is_err());
        assert!(items((0..=ITEMS_MAX).map(|n| item(&format!("sku-{n}"), 1, 1, 0)).collect()).is_err());
        assert!(items((0..ITEMS_MAX).map(|n| item(&format!("sku-{n}"), 1, 1, 0)).collect()).is_ok());
        assert!(items(vec![item("tea", 1, 1, 0), item("tea", 2, 1, 0)]).is_err());
        assert!(items(vec![item("tea", 2, i64::MAX, 0)]).is_err(), "the product is too much");
        assert!(items(vec![item("tea", 1, i64::MAX, 0), item("cup", 1, 1, 0)]).is_err(), "the sum is too much");
    }

    #[test]
    fn skus_and_quantities_have_their_ranges() {
        assert!(Quantity::new(0).is_err() && Quantity::new(1_000_001).is_err());
        assert!(Quantity::new(1).is_ok() && Quantity::new(1_000_000).is_ok());
        for refused in ["", "green tea", "thé", &"x".repeat(65)] {
            assert!(Sku::parse(refused).is_err(), "{refused:?}");
        }
    }
}
