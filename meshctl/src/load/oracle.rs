//! What the content of a right answer is: what was asked for, and beside it what was there before. Only what a service
//! decides by itself, ids, etags and times, is taken from the answer.

use mesh_api::shop::order::v1::{CreateOrderRequest, Money, Order, OrderItem, OrderStatus};
use mesh_api::shop::user::v1::{CreateUserRequest, UpdateUserRequest, User};

/// What is wrong with an answer, to be read after "OK, but".
type Fault = &'static str;

const NANOS_PER_UNIT: i128 = 1_000_000_000;

pub(super) fn read_user(known: &User, got: &User) -> Result<(), Fault> {
    require(got == known, "not the user that was written")
}

pub(super) fn created_user(asked: &CreateUserRequest, got: &User) -> Result<(), Fault> {
    require(got.email == asked.email && got.display_name == asked.display_name, "not the user that was asked for")?;
    require(!got.user_id.is_empty() && !got.etag.is_empty(), "the user has no id or no etag")
}

pub(super) fn updated_user(before: &User, asked: &UpdateUserRequest, got: &User) -> Result<(), Fault> {
    let wanted = User {
        email: asked.email.clone().unwrap_or_else(|| before.email.clone()),
        display_name: asked.display_name.clone().unwrap_or_else(|| before.display_name.clone()),
        etag: got.etag.clone(),
        update_time: got.update_time,
        ..before.clone()
    };
    require(*got == wanted, "not the user that was asked for")?;
    etag_moved(&before.etag, &got.etag)
}

pub(super) fn read_order(known: &Order, got: &Order) -> Result<(), Fault> {
    require(got == known, "not the order that was written")
}

pub(super) fn created_order(asked: &CreateOrderRequest, got: &Order) -> Result<(), Fault> {
    let wanted = Order {
        order_id: got.order_id.clone(),
        user_id: asked.user_id.clone(),
        items: asked.items.clone(),
        total: total(&asked.items),
        status: OrderStatus::Pending.into(),
        create_time: got.create_time,
        update_time: got.update_time,
        etag: got.etag.clone(),
    };
    require(*got == wanted, "not the order that was asked for")?;
    require(!got.order_id.is_empty() && !got.etag.is_empty(), "the order has no id or no etag")
}

pub(super) fn moved_order(before: &Order, status: OrderStatus, got: &Order) -> Result<(), Fault> {
    let (etag, update_time) = (got.etag.clone(), got.update_time);
    let wanted = Order { status: status.into(), etag, update_time, ..before.clone() };
    require(*got == wanted, "not the order in the status that was asked for")?;
    etag_moved(&before.etag, &got.etag)
}

/// To cancel again changes nothing.
pub(super) fn cancelled_order(before: &Order, got: &Order) -> Result<(), Fault> {
    match before.status() {
        OrderStatus::Cancelled => read_order(before, got),
        _ => moved_order(before, OrderStatus::Cancelled, got),
    }
}

/// Each price by its quantity, all in one currency.
pub(super) fn total(items: &[OrderItem]) -> Option<Money> {
    let mut nanos = 0;
    let mut currency_code = String::new();
    for item in items {
        let price = item.unit_price.as_ref()?;
        nanos += i128::from(item.quantity) * (i128::from(price.units) * NANOS_PER_UNIT + i128::from(price.nanos));
        currency_code.clone_from(&price.currency_code);
    }
    Some(Money {
        currency_code,
        units: i64::try_from(nanos / NANOS_PER_UNIT).ok()?,
        nanos: i32::try_from(nanos % NANOS_PER_UNIT).ok()?,
    })
}

fn etag_moved(before: &str, after: &str) -> Result<(), Fault> {
    require(!after.is_empty() && after != before, "the etag has not changed")
}

fn require(holds: bool, fault: Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(fault) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(units: i64, nanos: i32) -> Option<Money> {
        Some(Money { currency_code: "EUR".to_owned(), units, nanos })
    }

    fn item(quantity: u32, units: i64, nanos: i32) -> OrderItem {
        OrderItem { sku: "tea".to_owned(), quantity, unit_price: eur(units, nanos) }
    }

    #[test]
    fn a_total_carries_its_nanos() {
        assert_eq!(total(&[item(3, 4, 990_000_000), item(1, 0, 30_000_000)]), eur(15, 0));
    }

    #[test]
    fn a_written_user_is_what_was_asked_for() {
        let asked = CreateUserRequest { email: "a@b".to_owned(), display_name: "Ada".to_owned(), ..Default::default() };
        let (user_id, email, etag) = ("1".to_owned(), "a@b".to_owned(), "e1".to_owned());
        let right = User { user_id, email, display_name: "Ada".to_owned(), etag, ..Default::default() };
        assert_eq!(created_user(&asked, &right), Ok(()));
        for wrong in [
            User { email: "c@d".to_owned(), ..right.clone() },
            User { display_name: "Bob".to_owned(), ..right.clone() },
            User { user_id: String::new(), ..right.clone() },
            User { etag: String::new(), ..right.clone() },
        ] {
            assert!(created_user(&asked, &wrong).is_err(), "{wrong:?}");
        }

        let asked = UpdateUserRequest { display_name: Some("Countess".to_owned()), ..Default::default() };
        let after = User { display_name: "Countess".to_owned(), etag: "e2".to_owned(), ..right.clone() };
        assert_eq!(updated_user(&right, &asked, &after), Ok(()));
        for wrong in [
            right.clone(),
            User { etag: "e1".to_owned(), ..after.clone() },
            User { email: "c@d".to_owned(), ..after.clone() },
            User { user_id: "2".to_owned(), ..after.clone() },
        ] {
            assert!(updated_user(&right, &asked, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_written_order_is_what_was_asked_for() {
        let items = vec![item(2, 3, 500_000_000)];
        let asked = CreateOrderRequest { user_id: "1".to_owned(), items: items.clone(), ..Default::default() };
        let (order_id, user_id, etag) = ("7".to_owned(), "1".to_owned(), "e1".to_owned());
        let status = OrderStatus::Pending.into();
        let right = Order { order_id, user_id, items, total: eur(7, 0), status, etag, ..Default::default() };
        assert_eq!(created_order(&asked, &right), Ok(()));
        for wrong in [
            Order { total: eur(7, 1), ..right.clone() },
            Order { items: vec![], ..right.clone() },
            Order { user_id: "2".to_owned(), ..right.clone() },
            Order { status: OrderStatus::Paid.into(), ..right.clone() },
        ] {
            assert!(created_order(&asked, &wrong).is_err(), "{wrong:?}");
        }

        let paid = Order { status: OrderStatus::Paid.into(), etag: "e2".to_owned(), ..right.clone() };
        assert_eq!(moved_order(&right, OrderStatus::Paid, &paid), Ok(()));
        assert!(moved_order(&right, OrderStatus::Paid, &right).is_err(), "it has not moved");
        let same_etag = Order { etag: "e1".to_owned(), ..paid };
        assert!(moved_order(&right, OrderStatus::Paid, &same_etag).is_err());

        let cancelled = Order { status: OrderStatus::Cancelled.into(), etag: "e2".to_owned(), ..right.clone() };
        assert_eq!(cancelled_order(&right, &cancelled), Ok(()));
        assert!(cancelled_order(&right, &right).is_err());
        assert_eq!(cancelled_order(&cancelled, &cancelled), Ok(()), "again");
        let again = Order { etag: "e3".to_owned(), ..cancelled.clone() };
        assert!(cancelled_order(&cancelled, &again).is_err(), "to cancel again changes nothing");
    }
}
