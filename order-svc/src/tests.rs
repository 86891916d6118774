//! The service as its callers meet it, over a database of its own and a user-svc that a test controls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_api::shop::order::v1::order_service_server::OrderService as _;
use mesh_api::shop::order::v1::{
    CancelOrderRequest, CreateOrderRequest, DeleteOrderRequest, GetOrderRequest, ListOrdersRequest, Money, Order,
    OrderItem, OrderStatus, UpdateOrderRequest,
};
use mesh_runtime::auth::Caller;
use mesh_runtime::database::Database;
use prost_types::FieldMask;
use tempfile::TempDir;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::directory::{Directory, DirectoryError};
use crate::orders::Orders;
use crate::service::FrontDoor;
use crate::store::SCHEMA;

const ADA: Uuid = Uuid::from_u128(0xada);
const GRACE: Uuid = Uuid::from_u128(0x92ace);

/// A user-svc that knows Ada and Grace.
#[derive(Clone, Debug)]
enum Users {
    Up(Arc<AtomicUsize>),
    Down,
    Overloaded,
    Broken,
    Closed,
}

impl Users {
    fn up() -> Self {
        Self::Up(Arc::default())
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        match self {
            Self::Up(asked) => asked.load(Ordering::SeqCst),
            Self::Down | Self::Overloaded | Self::Broken | Self::Closed => 0,
        }
    }
}

impl Directory for Users {
    async fn require(&self, user_id: Uuid) -> Result<(), DirectoryError> {
        let asked = match self {
            Self::Up(asked) => asked,
            Self::Down => return Err(DirectoryError::Unavailable(Code::Unavailable)),
            Self::Overloaded => return Err(DirectoryError::Overloaded),
            Self::Broken => return Err(DirectoryError::Failed(Code::Internal)),
            Self::Closed => return Err(DirectoryError::Refused),
        };
        asked.fetch_add(1, Ordering::SeqCst);
        if [ADA, GRACE].contains(&user_id) { Ok(()) } else { Err(DirectoryError::Unknown(user_id)) }
    }
}

type Service = FrontDoor<Users>;

/// One instance of the service on the database in a folder; two of them are two instances.
async fn instance(folder: &TempDir, users: Users) -> Service {
    let url = format!("sqlite:{}/order.db", folder.path().display()).parse().unwrap();
    FrontDoor(Orders::new(Database::open(&url, &SCHEMA).await.unwrap(), users))
}

fn eur(units: i64, nanos: i32) -> Option<Money> {
    Some(Money { currency_code: "EUR".into(), units, nanos })
}

fn tea(quantity: u32) -> OrderItem {
    OrderItem { sku: "tea".into(), quantity, unit_price: eur(4, 990_000_000) }
}

fn order_of(user_id: Uuid, request_id: usize) -> CreateOrderRequest {
    CreateOrderRequest {
        request_id: format!("request-{request_id:016}"),
        user_id: user_id.to_string(),
        items: vec![tea(3), OrderItem { sku: "cup".into(), quantity: 1, unit_price: eur(0, 30_000_000) }],
    }
}

/// A request of this caller, as it is behind the layer that asks.
fn by<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

fn operator<T>(message: T) -> Request<T> {
    by(&Caller::operator(), message)
}

async fn create(orders: &Service, request: CreateOrderRequest) -> Result<Order, Status> {
    create_by(&Caller::operator(), orders, request).await
}

async fn create_by(caller: &Caller, orders: &Service, request: CreateOrderRequest) -> Result<Order, Status> {
    orders.create_order(by(caller, request)).await.map(|response| response.into_inner().order.unwrap())
}

async fn get(orders: &Service, order_id: &str) -> Result<Order, Status> {
    get_by(&Caller::operator(), orders, order_id).await
}

async fn get_by(caller: &Caller, orders: &Service, order_id: &str) -> Result<Order, Status> {
    let request = GetOrderRequest { order_id: order_id.into() };
    orders.get_order(by(caller, request)).await.map(|response| response.into_inner().order.unwrap())
}

async fn update(orders: &Service, request: UpdateOrderRequest) -> Result<Order, Status> {
    update_by(&Caller::operator(), orders, request).await
}

async fn update_by(caller: &Caller, orders: &Service, request: UpdateOrderRequest) -> Result<Order, Status> {
    orders.update_order(by(caller, request)).await.map(|response| response.into_inner().order.unwrap())
}

async fn cancel(orders: &Service, order_id: &str) -> Result<Order, Status> {
    cancel_by(&Caller::operator(), orders, order_id).await
}

async fn cancel_by(caller: &Caller, orders: &Service, order_id: &str) -> Result<Order, Status> {
    let request = CancelOrderRequest { order_id: order_id.into() };
    orders.cancel_order(by(caller, request)).await.map(|response| response.into_inner().order.unwrap())
}

async fn delete(orders: &Service, order_id: &str) -> Result<(), Status> {
    delete_by(&Caller::operator(), orders, order_id).await
}

async fn delete_by(caller: &Caller, orders: &Service, order_id: &str) -> Result<(), Status> {
    orders.delete_order(by(caller, DeleteOrderRequest { order_id: order_id.into() })).await.map(drop)
}

fn becomes(order: &Order, status: OrderStatus) -> UpdateOrderRequest {
    UpdateOrderRequest {
        order_id: order.order_id.clone(),
        etag: order.etag.clone(),
        status: status.into(),
        ..UpdateOrderRequest::default()
    }
}

/// Code and reason, which every refusal has.
fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "meshwork");
    (status.code(), info.reason)
}

fn fields<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<String> {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn an_order_is_found_as_it_was_placed_with_its_total() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    assert_eq!(placed.total, eur(15, 0));
    assert_eq!((placed.status(), placed.user_id.clone()), (OrderStatus::Pending, ADA.to_string()));
    assert_eq!(placed.items, order_of(ADA, 1).items);
    assert_eq!(get(&instance(&folder, Users::Down).await, &placed.order_id).await.unwrap(), placed);
}

#[tokio::test]
async fn every_fault_of_a_request_is_named() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    assert_eq!(fields(create(&orders, CreateOrderRequest::default()).await), ["request_id", "user_id", "items"]);
    let broken = |items| CreateOrderRequest { items, ..order_of(ADA, 1) };
    let empty = fields(create(&orders, broken(vec![tea(1), OrderItem::default()])).await);
    assert_eq!(empty, ["items[1].sku", "items[1].quantity", "items[1].unit_price"]);
    let price = |units, nanos, currency: &str| OrderItem {
        sku: "cup".into(),
        quantity: 2,
        unit_price: Some(Money { currency_code: currency.into(), units, nanos }),
    };
    let negative = fields(create(&orders, broken(vec![price(-1, 0, "euro")])).await);
    assert_eq!(negative, ["items[0].unit_price.currency_code", "items[0].unit_price"]);
    let mixed = fields(create(&orders, broken(vec![tea(1), price(1, 0, "USD")])).await);
    assert_eq!(mixed, ["items[1].unit_price.currency_code"]);
    assert_eq!(fields(create(&orders, broken(vec![tea(1), tea(1)])).await), ["items"]);
    assert_eq!(fields(create(&orders, broken(vec![price(i64::MAX, 0, "EUR")])).await), ["items"], "too much");
    assert_eq!(fields(create(&orders, broken(vec![tea(1); 101])).await), ["items"]);
    assert_eq!(fields(update(&orders, UpdateOrderRequest::default()).await), ["order_id", "etag"]);
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    assert_eq!(fields(update(&orders, becomes(&placed, OrderStatus::Unspecified)).await), ["update_mask"]);
    let mask = |path: &str| Some(FieldMask { paths: vec![path.into()] });
    let unset = UpdateOrderRequest { update_mask: mask("status"), ..becomes(&placed, OrderStatus::Unspecified) };
    assert_eq!(fields(update(&orders, unset).await), ["status"]);
    let unknown = UpdateOrderRequest { update_mask: mask("total"), ..becomes(&placed, OrderStatus::Paid) };
    assert_eq!(fields(update(&orders, unknown).await), ["update_mask"]);
    assert_eq!(fields(orders.list_orders(operator(ListOrdersRequest::default())).await), ["user_id"]);
}

#[tokio::test]
async fn a_repeated_order_is_placed_once_and_needs_no_user_svc() {
    let folder = TempDir::new().unwrap();
    let users = Users::up();
    let first = instance(&folder, users.clone()).await;
    let placed = create(&first, order_of(ADA, 1)).await.unwrap();
    assert_eq!(create(&first, order_of(ADA, 1)).await.unwrap(), placed);
    assert_eq!(users.asked(), 1);
    let second = instance(&folder, Users::Down).await;
    assert_eq!(create(&second, order_of(ADA, 1)).await.unwrap(), placed);
    let other = CreateOrderRequest { items: vec![tea(1)], ..order_of(ADA, 1) };
    assert_eq!(refused(create(&second, other).await), (Code::AlreadyExists, "REQUEST_ID_REUSED".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twins_at_two_instances_one_is_placed() {
    let folder = TempDir::new().unwrap();
    let instances = [instance(&folder, Users::up()).await, instance(&folder, Users::up()).await];
    for round in 0..20 {
        let [first, second] =
            instances.clone().map(|orders| tokio::spawn(async move { create(&orders, order_of(ADA, round)).await }));
        assert_eq!(first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    }
    let all = ListOrdersRequest { user_id: ADA.to_string(), ..ListOrdersRequest::default() };
    assert_eq!(instances[0].list_orders(operator(all)).await.unwrap().into_inner().orders.len(), 20);
}

#[tokio::test]
async fn an_order_needs_a_user_that_exists_and_a_user_svc_that_says_so() {
    let folder = TempDir::new().unwrap();
    let nobody = Uuid::from_u128(1);
    let status = create(&instance(&folder, Users::up()).await, order_of(nobody, 1)).await.unwrap_err();
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type, resource.resource_name), ("user".to_owned(), nobody.to_string()));
    assert_eq!(refused::<()>(Err(status)), (Code::FailedPrecondition, "USER_UNKNOWN".into()));
    for (users, code, reason) in [
        (Users::Down, Code::Unavailable, "USER_SERVICE_UNAVAILABLE"),
        (Users::Overloaded, Code::ResourceExhausted, "USER_SERVICE_OVERLOADED"),
        (Users::Broken, Code::Internal, "USER_SERVICE_FAILED"),
        (Users::Closed, Code::Internal, "USER_SERVICE_REFUSED"),
    ] {
        let refusal = create(&instance(&folder, users).await, order_of(ADA, 1)).await;
        assert_eq!(refused(refusal), (code, reason.to_owned()));
    }
    // No refusal used the request id up.
    create(&instance(&folder, Users::up()).await, order_of(ADA, 1)).await.unwrap();
}

#[tokio::test]
async fn a_status_moves_along_the_arrows_and_each_step_once() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    let illegal = (Code::FailedPrecondition, "ILLEGAL_STATUS".to_owned());
    assert_eq!(refused(update(&orders, becomes(&placed, OrderStatus::Shipped)).await), illegal);
    let paid = update(&orders, becomes(&placed, OrderStatus::Paid)).await.unwrap();
    assert_eq!(update(&orders, becomes(&placed, OrderStatus::Paid)).await.unwrap(), paid, "a repeat");
    let shipped = update(&orders, becomes(&paid, OrderStatus::Shipped)).await.unwrap();
    assert_eq!(refused(cancel(&orders, &placed.order_id).await), illegal);
    assert_eq!(refused(delete(&orders, &placed.order_id).await), illegal);
    let delivered = update(&orders, becomes(&shipped, OrderStatus::Delivered)).await.unwrap();
    assert_eq!(update(&orders, becomes(&placed, OrderStatus::Paid)).await.unwrap(), paid, "a late repeat");
    assert_eq!(get(&orders, &placed.order_id).await.unwrap(), delivered);
    delete(&orders, &placed.order_id).await.unwrap();
}

#[tokio::test]
async fn items_change_while_pending_and_the_total_follows() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    let change = UpdateOrderRequest { items: vec![tea(10)], ..becomes(&placed, OrderStatus::Paid) };
    let paid = update(&orders, change).await.unwrap();
    assert_eq!((paid.total.clone(), paid.status()), (eur(49, 900_000_000), OrderStatus::Paid));
    assert_eq!(get(&orders, &placed.order_id).await.unwrap().items, [tea(10)]);
    let late = UpdateOrderRequest { items: vec![tea(1)], ..becomes(&paid, OrderStatus::Unspecified) };
    assert_eq!(refused(update(&orders, late).await), (Code::FailedPrecondition, "ILLEGAL_STATUS".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_to_one_state_one_wins() {
    let folder = TempDir::new().unwrap();
    let instances = [instance(&folder, Users::up()).await, instance(&folder, Users::up()).await];
    let placed = create(&instances[0], order_of(ADA, 1)).await.unwrap();
    let racers = [1, 2, 3, 4, 5, 6].map(|quantity| {
        let orders = instances[quantity as usize % 2].clone();
        let request = UpdateOrderRequest { items: vec![tea(quantity)], ..becomes(&placed, OrderStatus::Unspecified) };
        tokio::spawn(async move { update(&orders, request).await })
    });
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(order) => winners.push(order),
            lost => assert_eq!(refused(lost), (Code::Aborted, "ETAG_MISMATCH".into())),
        }
    }
    assert_eq!(winners, [get(&instances[1], &placed.order_id).await.unwrap()]);
}

#[tokio::test]
async fn cancelling_and_deleting_again_is_ok() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    let cancelled = cancel(&orders, &placed.order_id).await.unwrap();
    assert_eq!(cancelled.status(), OrderStatus::Cancelled);
    assert_eq!(cancel(&orders, &placed.order_id).await.unwrap(), cancelled);
    assert_eq!(cancel(&orders, &placed.order_id.to_uppercase()).await.unwrap(), cancelled);
    delete(&orders, &placed.order_id).await.unwrap();
    delete(&orders, &placed.order_id).await.unwrap();
    assert_eq!(cancel(&orders, &placed.order_id).await.unwrap(), cancelled, "a late repeat");
    let gone = (Code::NotFound, "NOT_FOUND".to_owned());
    assert_eq!(refused(get(&orders, &placed.order_id).await), gone);
    assert_eq!(refused(cancel(&orders, &ADA.to_string()).await), gone);
    assert_eq!(refused(delete(&orders, &ADA.to_string()).await), gone);
}

#[tokio::test]
async fn an_order_cancelled_by_its_status_can_be_cancelled() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let placed = create(&orders, order_of(ADA, 1)).await.unwrap();
    let cancelled = update(&orders, becomes(&placed, OrderStatus::Cancelled)).await.unwrap();
    assert_eq!(cancel(&orders, &placed.order_id).await.unwrap(), cancelled);
}

#[tokio::test]
async fn pages_hold_every_order_of_one_user_with_its_items() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let mut placed = BTreeSet::new();
    for index in 0..5 {
        let request = CreateOrderRequest { items: vec![tea(index + 1)], ..order_of(ADA, index as usize) };
        placed.insert(create(&orders, request).await.unwrap().order_id);
        create(&orders, order_of(GRACE, 100 + index as usize)).await.unwrap();
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOrdersRequest { user_id: ADA.to_string(), page_size: 2, page_token };
        let page = orders.list_orders(operator(request)).await.unwrap().into_inner();
        listed.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let elsewhere = ListOrdersRequest { user_id: GRACE.to_string(), page_size: 2, page_token: page_token.clone() };
        assert_eq!(fields(orders.list_orders(operator(elsewhere)).await), ["page_token"]);
    }
    for (quantity, order) in (1..).zip(&listed) {
        assert_eq!(order.items, [tea(quantity)]);
    }
    assert_eq!(listed.into_iter().map(|order| order.order_id).collect::<Vec<_>>(), Vec::from_iter(placed));
}

/// Everything that a refusal says, with the id that it is about left out.
fn said<T: std::fmt::Debug>(refusal: Result<T, Status>, of: &str) -> (Code, String, Vec<u8>) {
    let status = refusal.unwrap_err();
    let details = String::from_utf8_lossy(status.details()).replace(of, "ID").into_bytes();
    (status.code(), status.message().replace(of, "ID"), details)
}

#[tokio::test]
async fn anothers_order_is_to_a_user_as_one_that_never_was() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let (ada, grace) = (Caller::user(ADA), Caller::user(GRACE));
    let placed = create_by(&ada, &orders, order_of(ADA, 1)).await.unwrap();
    let never = Uuid::from_u128(7).to_string();
    let theirs = placed.order_id.as_str();
    assert_eq!(get_by(&ada, &orders, theirs).await.unwrap(), placed);
    let items = |order_id: &str| UpdateOrderRequest {
        order_id: order_id.to_owned(),
        etag: placed.etag.clone(),
        items: vec![tea(9)],
        ..UpdateOrderRequest::default()
    };
    for caller in [&grace, &Caller::user(Uuid::from_u128(8))] {
        let (other, none) = (get_by(caller, &orders, theirs).await, get_by(caller, &orders, &never).await);
        let expected = said(none, &never);
        assert_eq!((expected.0, expected.1.as_str()), (Code::NotFound, "no order ID"));
        assert_eq!(said(other, theirs), expected);
        assert_eq!(said(update_by(caller, &orders, items(theirs)).await, theirs), expected);
        assert_eq!(said(update_by(caller, &orders, items(&never)).await, &never), expected);
        assert_eq!(said(cancel_by(caller, &orders, theirs).await, theirs), expected);
        assert_eq!(said(delete_by(caller, &orders, theirs).await, theirs), expected);
    }
    assert_eq!(get_by(&ada, &orders, theirs).await.unwrap(), placed, "and nothing was done to it");

    // What was answered to its owner, and stands in the ledger, is no more theirs.
    let changed = update_by(&ada, &orders, items(theirs)).await.unwrap();
    assert_eq!(update_by(&ada, &orders, items(theirs)).await.unwrap(), changed, "a repeat");
    assert_eq!(refused(update_by(&grace, &orders, items(theirs)).await).0, Code::NotFound);
    cancel_by(&ada, &orders, theirs).await.unwrap();
    assert_eq!(refused(cancel_by(&grace, &orders, theirs).await).0, Code::NotFound);
    delete_by(&ada, &orders, theirs).await.unwrap();
    delete_by(&ada, &orders, theirs).await.unwrap();
    assert_eq!(refused(delete_by(&grace, &orders, theirs).await).0, Code::NotFound);
}

#[tokio::test]
async fn a_user_orders_and_lists_for_nobody_else() {
    let folder = TempDir::new().unwrap();
    let users = Users::up();
    let orders = instance(&folder, users.clone()).await;
    let ada = Caller::user(ADA);
    let placed = create_by(&ada, &orders, order_of(ADA, 1)).await.unwrap();
    let of_grace = create(&orders, order_of(GRACE, 2)).await.unwrap();
    let asked = users.asked();
    let list = async |caller: &Caller, user_id: Uuid| {
        let request = ListOrdersRequest { user_id: user_id.to_string(), ..ListOrdersRequest::default() };
        orders.list_orders(by(caller, request)).await.map(|page| page.into_inner().orders)
    };
    // Grace exists and the other does not; which of them is which, Ada is not told.
    for other in [GRACE, Uuid::from_u128(7)] {
        let expected = (Code::NotFound, "NOT_FOUND".to_owned());
        assert_eq!(refused(create_by(&ada, &orders, order_of(other, 3)).await), expected);
        assert_eq!(refused(list(&ada, other).await), expected);
    }
    assert_eq!(users.asked(), asked, "nobody was asked of them");
    assert_eq!(list(&ada, ADA).await.unwrap(), [placed]);
    assert_eq!(list(&Caller::operator(), GRACE).await.unwrap(), [of_grace]);
}

#[tokio::test]
async fn one_request_id_of_two_users_is_two_requests() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let of_ada = create_by(&Caller::user(ADA), &orders, order_of(ADA, 1)).await.unwrap();
    let of_grace = create_by(&Caller::user(GRACE), &orders, order_of(GRACE, 1)).await.unwrap();
    assert_ne!(of_ada.order_id, of_grace.order_id);
    assert_eq!(create_by(&Caller::user(ADA), &orders, order_of(ADA, 1)).await.unwrap(), of_ada, "a repeat");
    // Nor does a request id tell whether somebody else has used it.
    assert_eq!(refused(create_by(&Caller::user(GRACE), &orders, order_of(ADA, 1)).await).0, Code::NotFound);
}

#[tokio::test]
async fn an_owner_changes_items_and_cancels_and_an_admin_does_the_rest() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let ada = Caller::user(ADA);
    let placed = create_by(&ada, &orders, order_of(ADA, 1)).await.unwrap();
    let needs_admin = (Code::PermissionDenied, "ROLE_REQUIRED".to_owned());
    for status in [OrderStatus::Paid, OrderStatus::Shipped, OrderStatus::Delivered, OrderStatus::Cancelled] {
        assert_eq!(refused(update_by(&ada, &orders, becomes(&placed, status)).await), needs_admin, "{status:?}");
        let sneaked = UpdateOrderRequest { items: vec![tea(1)], ..becomes(&placed, status) };
        assert_eq!(refused(update_by(&ada, &orders, sneaked).await), needs_admin, "{status:?}");
    }
    let nowhere =
        UpdateOrderRequest { order_id: Uuid::from_u128(7).to_string(), ..becomes(&placed, OrderStatus::Paid) };
    assert_eq!(refused(update_by(&ada, &orders, nowhere).await), needs_admin, "whether there is such an order or not");
    let items = UpdateOrderRequest { items: vec![tea(2)], ..becomes(&placed, OrderStatus::Unspecified) };
    let changed = update_by(&ada, &orders, items).await.unwrap();
    let paid = update(&orders, becomes(&changed, OrderStatus::Paid)).await.unwrap();
    assert_eq!(cancel_by(&ada, &orders, &paid.order_id).await.unwrap().status(), OrderStatus::Cancelled);
}

#[tokio::test]
async fn nobody_is_served_who_was_not_asked() {
    let folder = TempDir::new().unwrap();
    let orders = instance(&folder, Users::up()).await;
    let missing = (Code::Unauthenticated, "TOKEN_MISSING".to_owned());
    assert_eq!(refused(orders.create_order(Request::new(order_of(ADA, 1))).await), missing);
    assert_eq!(refused(orders.get_order(Request::new(GetOrderRequest::default())).await), missing);
    assert_eq!(refused(orders.update_order(Request::new(UpdateOrderRequest::default())).await), missing);
    assert_eq!(refused(orders.cancel_order(Request::new(CancelOrderRequest::default())).await), missing);
    assert_eq!(refused(orders.delete_order(Request::new(DeleteOrderRequest::default())).await), missing);
    assert_eq!(refused(orders.list_orders(Request::new(ListOrdersRequest::default())).await), missing);
}
