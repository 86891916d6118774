//! Orders between the wire and the domain.

use mesh_api::shop::order::v1 as wire;
use mesh_runtime::database::{Fault, Violations};

use crate::money::{Amount, Currency};
use crate::order::{ITEMS_MAX, Item, Items, Order, OrderStatus, Quantity, Sku};

pub(crate) fn to_wire(order: &Order) -> wire::Order {
    let currency = order.items.currency();
    let money = |amount| to_wire_money(currency, amount);
    let items = order.items.lines().iter().map(|line| wire::OrderItem {
        sku: line.sku.as_str().to_owned(),
        quantity: line.quantity.get(),
        unit_price: Some(money(line.unit_price)),
    });
    wire::Order {
        order_id: order.id.to_string(),
        user_id: order.user_id.to_string(),
        items: items.collect(),
        total: Some(money(order.items.total())),
        status: to_wire_status(order.status).into(),
        create_time: Some(order.created_at.into()),
        update_time: Some(order.updated_at.into()),
        etag: order.etag().as_str().to_owned(),
    }
}

fn to_wire_money(currency: Currency, amount: Amount) -> wire::Money {
    wire::Money { currency_code: currency.to_string(), units: amount.units(), nanos: amount.nanos() }
}

fn to_wire_status(status: OrderStatus) -> wire::OrderStatus {
    match status {
        OrderStatus::Pending => wire::OrderStatus::Pending,
        OrderStatus::Paid => wire::OrderStatus::Paid,
        OrderStatus::Shipped => wire::OrderStatus::Shipped,
        OrderStatus::Delivered => wire::OrderStatus::Delivered,
        OrderStatus::Cancelled => wire::OrderStatus::Cancelled,
    }
}

/// The status that a number of the wire stands for.
pub(crate) fn status(number: i32) -> Result<OrderStatus, Fault> {
    let known = OrderStatus::ALL.into_iter().find(|status| i32::from(to_wire_status(*status)) == number);
    known.ok_or_else(|| "must be one of the named statuses".into())
}

/// The items of a request; faults are noted under the path of the field they are in.
pub(crate) fn items(violations: &mut Violations, items: &[wire::OrderItem]) -> Option<Items> {
    if items.len() > ITEMS_MAX {
        violations.add("items", Fault(format!("must have 1 to {ITEMS_MAX} entries, not {}", items.len())));
        return None;
    }
    let checked: Vec<_> = items.iter().enumerate().map(|(index, line)| item(violations, index, line)).collect();
    let checked = checked.into_iter().collect::<Option<Vec<_>>>()?;
    let Some((currency, _)) = checked.first() else {
        violations.add("items", "is required");
        return None;
    };
    let currency = *currency;
    if let Some(other) = checked.iter().position(|(of, _)| *of != currency) {
        let fault = Fault(format!("must be {currency}, as in the first item"));
        violations.add(format!("items[{other}].unit_price.currency_code"), fault);
        return None;
    }
    let lines = checked.into_iter().map(|(_, line)| line).collect();
    violations.check("items", Items::new(currency, lines))
}

fn item(violations: &mut Violations, index: usize, line: &wire::OrderItem) -> Option<(Currency, Item)> {
    let path = |field: &str| format!("items[{index}].{field}");
    let sku = violations.check(path("sku"), Sku::parse(&line.sku));
    let quantity = violations.check(path("quantity"), Quantity::new(line.quantity));
    let price = line.unit_price.as_ref().ok_or("is required");
    let price = violations.check(path("unit_price"), price)?;
    let currency = violations.check(path("unit_price.currency_code"), Currency::parse(&price.currency_code));
    let unit_price = violations.check(path("unit_price"), Amount::new(price.units, price.nanos));
    Some((currency?, Item { sku: sku?, quantity: quantity?, unit_price: unit_price? }))
}
