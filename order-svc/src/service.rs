//! `shop.order.v1.OrderService` on the wire: requests become valid values, answers become messages.

use mesh_api::shop::order::v1 as wire;
use mesh_api::shop::order::v1::order_service_server::OrderService;
use mesh_runtime::auth::Caller;
use mesh_runtime::database::{Call, Etag, Mask, PageRequest, RequestId, Scope, Violations, id};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::convert;
use crate::directory::Directory;
use crate::order::{Change, Items};
use crate::orders::Orders;

/// The front door of the orders.
#[derive(Clone, Debug)]
pub(crate) struct FrontDoor<D>(pub(crate) Orders<D>);

#[tonic::async_trait]
impl<D: Directory> OrderService for FrontDoor<D> {
    async fn create_order(
        &self,
        request: Request<wire::CreateOrderRequest>,
    ) -> Result<Response<wire::CreateOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (call, user_id, items) = create(request.get_ref())?;
        let order = self.0.create(caller, call, user_id, items).await?;
        Ok(Response::new(wire::CreateOrderResponse { order: Some(order) }))
    }

    async fn get_order(
        &self,
        request: Request<wire::GetOrderRequest>,
    ) -> Result<Response<wire::GetOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = Violations::only("order_id", id(&request.get_ref().order_id))?;
        let order = self.0.get(caller, id).await?;
        Ok(Response::new(wire::GetOrderResponse { order: Some(order) }))
    }

    async fn update_order(
        &self,
        request: Request<wire::UpdateOrderRequest>,
    ) -> Result<Response<wire::UpdateOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (call, id, etag, change) = update(request.get_ref())?;
        let order = self.0.update(caller, call, id, etag, change).await?;
        Ok(Response::new(wire::UpdateOrderResponse { order: Some(order) }))
    }

    async fn cancel_order(
        &self,
        request: Request<wire::CancelOrderRequest>,
    ) -> Result<Response<wire::CancelOrderResponse>, Status> {
        let (caller, request) = (Caller::of(&request)?, request.get_ref());
        let id = Violations::only("order_id", id(&request.order_id))?;
        let order = self.0.cancel(caller, Call::new("CancelOrder", id, request), id).await?;
        Ok(Response::new(wire::CancelOrderResponse { order: Some(order) }))
    }

    async fn delete_order(
        &self,
        request: Request<wire::DeleteOrderRequest>,
    ) -> Result<Response<wire::DeleteOrderResponse>, Status> {
        let (caller, request) = (Caller::of(&request)?, request.get_ref());
        let id = Violations::only("order_id", id(&request.order_id))?;
        Ok(Response::new(self.0.delete(caller, Call::new("DeleteOrder", id, request), id).await?))
    }

    async fn list_orders(
        &self,
        request: Request<wire::ListOrdersRequest>,
    ) -> Result<Response<wire::ListOrdersResponse>, Status> {
        let (caller, request) = (Caller::of(&request)?, request.get_ref());
        let user_id = Violations::only("user_id", id(&request.user_id))?;
        let page = PageRequest::parse(Scope::of("ListOrders", user_id), request.page_size, &request.page_token)?;
        let page = self.0.list(caller, user_id, page).await?;
        Ok(Response::new(wire::ListOrdersResponse { orders: page.rows, next_page_token: page.next_page_token }))
    }
}

fn create(request: &wire::CreateOrderRequest) -> Result<(Call, Uuid, Items), Violations> {
    let mut violations = Violations::default();
    let request_id = violations.check("request_id", RequestId::parse(&request.request_id));
    let user_id = violations.check("user_id", id(&request.user_id));
    let items = convert::items(&mut violations, &request.items);
    let (Some(request_id), Some(user_id), Some(items)) = (request_id, user_id, items) else { return Err(violations) };
    Ok((Call::new("CreateOrder", request_id.as_str(), request), user_id, items))
}

fn update(request: &wire::UpdateOrderRequest) -> Result<(Call, Uuid, Etag, Change), Violations> {
    let mut violations = Violations::default();
    let id = violations.check("order_id", id(&request.order_id));
    let etag = violations.check("etag", Etag::parse(&request.etag));
    let mask = violations.check("update_mask", Mask::parse(request.update_mask.clone(), &["items", "status"]));
    let names = |field, is_present| mask.as_ref().is_some_and(|mask| mask.names(field, is_present));
    let mut change = Change::default();
    if names("items", !request.items.is_empty()) {
        change.items = convert::items(&mut violations, &request.items);
    }
    if names("status", request.status != 0) {
        change.status = violations.check("status", convert::status(request.status));
    }
    if violations.is_empty() && change.items.is_none() && change.status.is_none() {
        violations.add("update_mask", "names no field, and none is present");
    }
    match (id, etag) {
        (Some(id), Some(etag)) if violations.is_empty() => {
            Ok((Call::based_on("UpdateOrder", id, &etag, request), id, etag, change))
        }
        _ => Err(violations),
    }
}
