//! Orders in the database: one function per use, each query through an index.

use mesh_runtime::database::{Connection, DatabaseError, PageRequest, Row, Schema, UnixMillis};
use sqlx::Row as _;
use uuid::Uuid;

use crate::money::{Amount, Currency};
use crate::order::{Item, Items, Order, OrderStatus, Quantity, Sku};

/// The database of order-svc; the id reads "ordr".
pub(crate) const SCHEMA: Schema = Schema {
    owner: "order-svc",
    application_id: u32::from_be_bytes(*b"ordr"),
    migrations: &[("orders", include_str!("migrations/0001_orders.sql"))],
};

const INSERT: &str = "INSERT INTO orders \
     (id, user_id, status, currency_code, version, created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const INSERT_ITEM: &str = "INSERT INTO order_items \
     (order_id, line, sku, quantity, price_units, price_nanos) VALUES ($1, $2, $3, $4, $5, $6)";
const FIND: &str = "SELECT id, user_id, status, currency_code, version, created_at_ms, updated_at_ms \
     FROM orders WHERE id = $1 AND ($2 IS NULL OR user_id = $2)";
const FIND_ITEMS: &str = "SELECT order_id, sku, quantity, price_units, price_nanos \
     FROM order_items WHERE order_id = $1 ORDER BY line";
const UPDATE: &str =
    "UPDATE orders SET status = $1, currency_code = $2, version = $3, updated_at_ms = $4 WHERE id = $5";
const DELETE_ITEMS: &str = "DELETE FROM order_items WHERE order_id = $1";
/// The items go with it.
const DELETE: &str = "DELETE FROM orders WHERE id = $1";
const LIST: &str = "SELECT id, user_id, status, currency_code, version, created_at_ms, updated_at_ms \
     FROM orders WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3";
const LIST_ITEMS: &str = "SELECT i.order_id, i.sku, i.quantity, i.price_units, i.price_nanos \
     FROM orders o JOIN order_items i ON i.order_id = o.id \
     WHERE o.user_id = $1 AND o.id > $2 AND o.id <= $3 ORDER BY o.id, i.line";

pub(crate) async fn insert(connection: &mut Connection, order: &Order) -> Result<(), DatabaseError> {
    let insert = sqlx::query(INSERT).bind(order.id).bind(order.user_id).bind(order.status.name());
    let insert = insert.bind(order.items.currency().to_string()).bind(order.version);
    insert.bind(order.created_at.0).bind(order.updated_at.0).execute(&mut *connection).await?;
    insert_items(connection, order).await
}

async fn insert_items(connection: &mut Connection, order: &Order) -> Result<(), DatabaseError> {
    for (line, item) in (1_i64..).zip(order.items.lines()) {
        let insert = sqlx::query(INSERT_ITEM).bind(order.id).bind(line).bind(item.sku.as_str());
        let insert = insert.bind(i64::from(item.quantity.get())).bind(item.unit_price.units());
        insert.bind(i64::from(item.unit_price.nanos())).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The order of this id, if it is the owner's; `None` for everybody's. One query, so that another's order is not to be told
/// from one that never was. What writes takes the order that was found here.
pub(crate) async fn find(
    connection: &mut Connection,
    id: Uuid,
    owner: Option<Uuid>,
) -> Result<Option<Order>, DatabaseError> {
    let found = sqlx::query(FIND).bind(id).bind(owner).fetch_optional(&mut *connection).await?;
    let Some(row) = found else { return Ok(None) };
    let items = sqlx::query(FIND_ITEMS).bind(id).fetch_all(connection).await?;
    let items = items.iter().map(item).collect::<Result<_, _>>()?;
    order(&row, items).map(Some)
}

/// Writes an order that was found in the same transaction, items and all.
pub(crate) async fn update(connection: &mut Connection, order: &Order) -> Result<(), DatabaseError> {
    let update = sqlx::query(UPDATE).bind(order.status.name()).bind(order.items.currency().to_string());
    update.bind(order.version).bind(order.updated_at.0).bind(order.id).execute(&mut *connection).await?;
    sqlx::query(DELETE_ITEMS).bind(order.id).execute(&mut *connection).await?;
    insert_items(connection, order).await
}

/// Deletes an order that was found in the same transaction.
pub(crate) async fn delete(connection: &mut Connection, order: &Order) -> Result<(), DatabaseError> {
    sqlx::query(DELETE).bind(order.id).execute(connection).await?;
    Ok(())
}

/// The orders of one user behind the page's start, with their items.
pub(crate) async fn list(
    connection: &mut Connection,
    user_id: Uuid,
    page: &PageRequest,
) -> Result<Vec<Order>, DatabaseError> {
    let list = sqlx::query(LIST).bind(user_id).bind(page.after()).bind(page.limit());
    let rows = list.fetch_all(&mut *connection).await?;
    let Some(last) = rows.last() else { return Ok(Vec::new()) };
    let last: Uuid = last.try_get("id")?;
    let items = sqlx::query(LIST_ITEMS).bind(user_id).bind(page.after()).bind(last).fetch_all(connection).await?;
    let mut items = items.iter().peekable();
    let mut orders = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: Uuid = row.try_get("id")?;
        let mut lines = Vec::new();
        while let Some(line) = items.next_if(|line| line.try_get("order_id").is_ok_and(|of: Uuid| of == id)) {
            lines.push(item(line)?);
        }
        orders.push(order(row, lines)?);
    }
    Ok(orders)
}

fn order(row: &Row, lines: Vec<Item>) -> Result<Order, DatabaseError> {
    let unreadable = |what| move |_| DatabaseError::Unreadable { what };
    let currency: String = row.try_get("currency_code")?;
    let currency = Currency::parse(&currency).map_err(unreadable("currency_code"))?;
    let status: String = row.try_get("status")?;
    let status = OrderStatus::ALL.into_iter().find(|known| known.name() == status);
    Ok(Order {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        items: Items::new(currency, lines).map_err(unreadable("items"))?,
        status: status.ok_or(DatabaseError::Unreadable { what: "status" })?,
        version: row.try_get("version")?,
        created_at: UnixMillis(row.try_get("created_at_ms")?),
        updated_at: UnixMillis(row.try_get("updated_at_ms")?),
    })
}

fn item(row: &Row) -> Result<Item, DatabaseError> {
    let unreadable = |what| move |_| DatabaseError::Unreadable { what };
    let sku: String = row.try_get("sku")?;
    Ok(Item {
        sku: Sku::parse(&sku).map_err(unreadable("sku"))?,
        quantity: Quantity::new(row.try_get("quantity")?).map_err(unreadable("quantity"))?,
        unit_price: Amount::new(row.try_get("price_units")?, row.try_get("price_nanos")?)
            .map_err(unreadable("price"))?,
    })
}

#[cfg(test)]
mod tests {
    use mesh_runtime::database::Database;

    use super::{DELETE, DELETE_ITEMS, FIND, FIND_ITEMS, LIST, LIST_ITEMS, SCHEMA, UPDATE};

    #[tokio::test]
    async fn every_query_uses_an_index() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite:{}/order.db", folder.path().display()).parse().unwrap();
        let database = Database::open(&url, &SCHEMA).await.unwrap();
        for query in [FIND, FIND_ITEMS, UPDATE, DELETE_ITEMS, DELETE, LIST, LIST_ITEMS] {
            assert_eq!(database.unindexed_steps(query).await.unwrap(), [""; 0], "{query}");
        }
    }
}
