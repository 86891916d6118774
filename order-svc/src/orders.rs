//! What can be done with orders, by whom. Mutating calls go through the ledger, so each is done once however often it
//! arrives. A user's calls are about their own orders: those of others are not found, here as in the ledger.

use mesh_api::shop::order::v1 as wire;
use mesh_runtime::auth::Caller;
use mesh_runtime::database::{Answered, Begun, Call, Database, Etag, Page, PageRequest, ResourceError};
use mesh_runtime::entropy;
use uuid::Uuid;

use crate::convert::to_wire;
use crate::directory::Directory;
use crate::error::OrderError;
use crate::order::{Change, Items, Order, OrderStatus};
use crate::store;

/// The resource type in error details.
const KIND: &str = "order";

/// The orders of one database, and who knows the users.
#[derive(Clone, Debug)]
pub(crate) struct Orders<D> {
    database: Database,
    directory: D,
}

impl<D: Directory> Orders<D> {
    pub(crate) fn new(database: Database, directory: D) -> Self {
        Self { database, directory }
    }

    pub(crate) async fn create(
        &self,
        caller: &Caller,
        call: Call,
        user_id: Uuid,
        items: Items,
    ) -> Result<wire::Order, OrderError> {
        require_own(caller, user_id)?;
        let call = call.by(caller.owner());
        // Asked before the user is: a repeat is answered even where user-svc is away, or the user gone. And asked again in
        // the write, since a twin of this request may have come first meanwhile.
        if let Some(answered) = self.database.recall(&call).await? {
            return once(answered);
        }
        self.directory.require(user_id).await?;
        let mut work = match self.database.begin(call).await? {
            Begun::Answered(answered) => return once(answered),
            Begun::Fresh(work) => work,
        };
        let now = work.now();
        let order = Order {
            id: entropy::uuid_v7(),
            user_id,
            items,
            status: OrderStatus::Pending,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        store::insert(work.connection(), &order).await?;
        Ok(work.finish(to_wire(&order)).await?)
    }

    pub(crate) async fn get(&self, caller: &Caller, id: Uuid) -> Result<wire::Order, OrderError> {
        let found = store::find(self.database.read().await?.connection(), id, caller.owner()).await?;
        Ok(to_wire(&found.ok_or_else(|| not_found(id))?))
    }

    /// The call's key names the order and the etag.
    pub(crate) async fn update(
        &self,
        caller: &Caller,
        call: Call,
        id: Uuid,
        etag: Etag,
        change: Change,
    ) -> Result<wire::Order, OrderError> {
        // Before anything is looked up, so that it tells nothing of the order.
        if change.status.is_some() && caller.owner().is_some() {
            return Err(OrderError::NotTheOwners);
        }
        let mut work = match self.database.begin(call.by(caller.owner())).await? {
            Begun::Answered(Answered::Same(order)) => return Ok(order),
            // Another change was based on this etag, so the order has moved on.
            Begun::Answered(Answered::Otherwise) => {
                let order = self.get(caller, id).await?;
                return Err(ResourceError::EtagMismatch { kind: KIND, current: order.etag }.into());
            }
            Begun::Fresh(work) => work,
        };
        let found = store::find(work.connection(), id, caller.owner()).await?.ok_or_else(|| not_found(id))?;
        etag.require(KIND, &found.etag())?;
        let order = found.changed(change, work.now())?;
        store::update(work.connection(), &order).await?;
        Ok(work.finish(to_wire(&order)).await?)
    }

    /// The call's key names the order.
    pub(crate) async fn cancel(&self, caller: &Caller, call: Call, id: Uuid) -> Result<wire::Order, OrderError> {
        let mut work = match self.database.begin(call.by(caller.owner())).await? {
            Begun::Answered(Answered::Same(order)) => return Ok(order),
            // Two requests to cancel one order differ in nothing but the spelling of its id.
            Begun::Answered(Answered::Otherwise) => return self.get(caller, id).await,
            Begun::Fresh(work) => work,
        };
        let found = store::find(work.connection(), id, caller.owner()).await?.ok_or_else(|| not_found(id))?;
        if found.status == OrderStatus::Cancelled {
            return Ok(to_wire(&found));
        }
        let change = Change { status: Some(OrderStatus::Cancelled), items: None };
        let order = found.changed(change, work.now())?;
        store::update(work.connection(), &order).await?;
        Ok(work.finish(to_wire(&order)).await?)
    }

    /// The call's key names the order.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        call: Call,
        id: Uuid,
    ) -> Result<wire::DeleteOrderResponse, OrderError> {
        let mut work = match self.database.begin(call.by(caller.owner())).await? {
            Begun::Answered(Answered::Same(response)) => return Ok(response),
            Begun::Answered(Answered::Otherwise) => return Ok(wire::DeleteOrderResponse {}),
            Begun::Fresh(work) => work,
        };
        let found = store::find(work.connection(), id, caller.owner()).await?.ok_or_else(|| not_found(id))?;
        found.require_settled()?;
        store::delete(work.connection(), &found).await?;
        Ok(work.finish(wire::DeleteOrderResponse {}).await?)
    }

    pub(crate) async fn list(
        &self,
        caller: &Caller,
        user_id: Uuid,
        page: PageRequest,
    ) -> Result<Page<wire::Order>, OrderError> {
        require_own(caller, user_id)?;
        let rows = store::list(self.database.read().await?.connection(), user_id, &page).await?;
        let page = page.page(rows, |order| order.id);
        Ok(Page { rows: page.rows.iter().map(to_wire).collect(), next_page_token: page.next_page_token })
    }
}

/// Fails where the caller may not know of this user. Whether there is one is not asked, so it is not told either.
fn require_own(caller: &Caller, user_id: Uuid) -> Result<(), OrderError> {
    if caller.may_see(user_id) { Ok(()) } else { Err(ResourceError::NotFound { kind: "user", id: user_id }.into()) }
}

fn once(answered: Answered<wire::Order>) -> Result<wire::Order, OrderError> {
    match answered {
        Answered::Same(order) => Ok(order),
        Answered::Otherwise => Err(ResourceError::RequestIdReused.into()),
    }
}

fn not_found(id: Uuid) -> OrderError {
    ResourceError::NotFound { kind: KIND, id }.into()
}
