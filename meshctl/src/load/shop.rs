//! What the load calls, and the oracle: a shop that remembers what it wrote, so that it knows every answer in advance.
//!
//! Some customers log in and call with tokens of their own; whatever nobody does for themselves, the operator does.
//!
//! Whatever a call changes belongs to that call alone until its answer is there, so no two calls race and there is one
//! right answer for each. What a failed call leaves in doubt is not used again.

use std::time::Duration;

use mesh_api::shop::order::v1::order_service_client::OrderServiceClient;
use mesh_api::shop::order::v1::{
    CancelOrderRequest, CreateOrderRequest, DeleteOrderRequest, GetOrderRequest, ListOrdersRequest, Money, Order,
    OrderItem, OrderStatus, UpdateOrderRequest,
};
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{
    CreateUserRequest, DeleteUserRequest, GetUserRequest, ListUsersRequest, LoginRequest, UpdateUserRequest, User,
};
use mesh_client::MeshChannel;
use mesh_runtime::{clock, code_name};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::oracle;
use crate::bearer::Bearer;
use crate::operator::Operator;

/// Visitors and orders that are kept at most; beyond, creating turns into deleting.
const KEPT_MAX: usize = 200;

/// Deleted users that are remembered, to ask for in vain.
const GONE_MAX: usize = 50;

/// How long before the end of a token it is used no more: a call that is under way may take its deadline, and clocks differ.
const LOGIN_SPARE: Duration = Duration::from_secs(60);

/// A method of one of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    CreateUser,
    GetUser,
    UpdateUser,
    DeleteUser,
    ListUsers,
    CreateOrder,
    GetOrder,
    UpdateOrder,
    CancelOrder,
    DeleteOrder,
    ListOrders,
}

impl Method {
    pub(super) const ALL: [Method; 11] = [
        Method::CreateUser,
        Method::GetUser,
        Method::UpdateUser,
        Method::DeleteUser,
        Method::ListUsers,
        Method::CreateOrder,
        Method::GetOrder,
        Method::UpdateOrder,
        Method::CancelOrder,
        Method::DeleteOrder,
        Method::ListOrders,
    ];

    /// Share of the calls in percent. Two in five write. Creating users is kept rare: a password hash is built to be dear.
    fn share(self) -> u32 {
        match self {
            Method::CreateUser => 3,
            Method::GetUser => 24,
            Method::UpdateUser => 6,
            Method::DeleteUser => 3,
            Method::ListUsers => 8,
            Method::CreateOrder => 12,
            Method::GetOrder => 20,
            Method::UpdateOrder => 8,
            Method::CancelOrder => 4,
            Method::DeleteOrder => 4,
            Method::ListOrders => 8,
        }
    }

    pub(super) fn writes(self) -> bool {
        !matches!(self, Method::GetUser | Method::ListUsers | Method::GetOrder | Method::ListOrders)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Method::CreateUser => "CreateUser",
            Method::GetUser => "GetUser",
            Method::UpdateUser => "UpdateUser",
            Method::DeleteUser => "DeleteUser",
            Method::ListUsers => "ListUsers",
            Method::CreateOrder => "CreateOrder",
            Method::GetOrder => "GetOrder",
            Method::UpdateOrder => "UpdateOrder",
            Method::CancelOrder => "CancelOrder",
            Method::DeleteOrder => "DeleteOrder",
            Method::ListOrders => "ListOrders",
        }
    }

    /// Full name, as in `grpc.method`.
    pub(super) fn path(self) -> String {
        let service = match self {
            Method::CreateUser | Method::GetUser | Method::UpdateUser | Method::DeleteUser | Method::ListUsers => {
                "shop.user.v1.UserService"
            }
            Method::CreateOrder
            | Method::GetOrder
            | Method::UpdateOrder
            | Method::CancelOrder
            | Method::DeleteOrder
            | Method::ListOrders => "shop.order.v1.OrderService",
        };
        format!("{service}/{}", self.name())
    }
}

/// One call with its one right status.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) method: Method,
    pub(super) expected: Code,
    pub(super) request: Ask,
    pub(super) caller: Caller,
    /// What the call has to itself until it is answered.
    held: Held,
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Whoever runs the mesh: may do everything.
    Operator,
    /// A user who has logged in: sees what is theirs, and nothing else.
    User {
        /// Their id.
        user_id: String,
        /// Their token.
        bearer: Bearer,
    },
}

/// A request of any method.
#[derive(Debug)]
pub(super) enum Ask {
    CreateUser(CreateUserRequest),
    GetUser(GetUserRequest),
    UpdateUser(UpdateUserRequest),
    DeleteUser(DeleteUserRequest),
    ListUsers(ListUsersRequest),
    CreateOrder(CreateOrderRequest),
    GetOrder(GetOrderRequest),
    UpdateOrder(UpdateOrderRequest),
    CancelOrder(CancelOrderRequest),
    DeleteOrder(DeleteOrderRequest),
    ListOrders(ListOrdersRequest),
}

/// The part of an answer that the oracle looks at.
#[derive(Debug)]
pub(super) enum Answer {
    User(Option<User>),
    Order(Option<Order>),
    /// Nothing to compare: a list, or nothing at all.
    Done,
}

#[derive(Debug)]
enum Held {
    Nothing,
    /// Read only, and never changed by anybody.
    Customer(User),
    Visitor(Visitor),
    Order(Order),
}

/// A user who places orders and is never changed.
#[derive(Debug, Clone)]
struct Customer {
    user: User,
    /// Their token, and until when it is used; none where the operator calls for them.
    login: Option<(Bearer, Instant)>,
}

impl Customer {
    fn caller(&self, now: Instant) -> Caller {
        match &self.login {
            Some((bearer, until)) if now < *until => {
                Caller::User { user_id: self.user.user_id.clone(), bearer: bearer.clone() }
            }
            _ => Caller::Operator,
        }
    }
}

/// A user that may be changed and deleted.
#[derive(Debug)]
struct Visitor {
    user: User,
    /// An etag that it had before its last change.
    former_etag: Option<String>,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    AsExpected,
    /// In words.
    Wrong(String),
}

/// Everything that has been written and not deleted, except for what is in flight.
#[derive(Debug)]
pub(super) struct Shop {
    rng: StdRng,
    customers: Vec<Customer>,
    visitors: Vec<Visitor>,
    orders: Vec<Order>,
    /// Ids of deleted users.
    gone: Vec<String>,
}

impl Shop {
    pub(super) fn new(rng: StdRng) -> Shop {
        Shop { rng, customers: Vec::new(), visitors: Vec::new(), orders: Vec::new(), gone: Vec::new() }
    }

    /// A customer from the time before the load, and the token of one who has logged in, with its end.
    pub(super) fn welcome(&mut self, user: User, login: Option<(Bearer, Instant)>) {
        self.customers.push(Customer { user, login });
    }

    pub(super) fn a_new_user(&mut self) -> CreateUserRequest {
        let id = self.an_id();
        CreateUserRequest {
            email: format!("{id}@shop.test"),
            display_name: format!("Visitor {}", &id[..6]),
            password: "correct horse battery".to_owned(),
            request_id: id,
        }
    }

    /// Draws the next call. Where there is nothing yet to do it with, it makes something.
    ///
    /// What a customer who has logged in does with their own things, they do themselves; now and then they ask for an order
    /// of somebody else, which to them is none. Everything else is the operator's.
    pub(super) fn next_call(&mut self, now: Instant) -> Planned {
        let mut drawn = self.rng.random_range(0..100);
        let mut chosen = Method::GetUser;
        for method in Method::ALL {
            chosen = method;
            match u32::checked_sub(drawn, method.share()) {
                Some(rest) => drawn = rest,
                None => break,
            }
        }
        match chosen {
            Method::CreateUser => self.create_user(),
            Method::GetUser => self.get_user(now),
            Method::UpdateUser => self.update_user(),
            Method::DeleteUser => self.delete_user(),
            Method::ListUsers => {
                plan(Method::ListUsers, Ask::ListUsers(ListUsersRequest { page_size: 5, ..Default::default() }))
            }
            Method::CreateOrder => self.create_order(now),
            Method::GetOrder => self.get_order(now),
            Method::UpdateOrder => self.update_order(now),
            Method::CancelOrder => self.cancel_order(now),
            Method::DeleteOrder => self.delete_order(now),
            Method::ListOrders => self.list_orders(now),
        }
    }

    fn create_user(&mut self) -> Planned {
        if self.visitors.len() >= KEPT_MAX {
            return self.delete_user();
        }
        let request = self.a_new_user();
        plan(Method::CreateUser, Ask::CreateUser(request))
    }

    fn get_user(&mut self, now: Instant) -> Planned {
        let asks_for_gone = self.rng.random_ratio(1, 10) && !self.gone.is_empty();
        if asks_for_gone {
            let user_id = self.gone[self.rng.random_range(0..self.gone.len())].clone();
            return plan(Method::GetUser, Ask::GetUser(GetUserRequest { user_id })).expecting(Code::NotFound);
        }
        let customer = self.a_customer();
        let request = Ask::GetUser(GetUserRequest { user_id: customer.user.user_id.clone() });
        plan(Method::GetUser, request).by(customer.caller(now)).holding(Held::Customer(customer.user))
    }

    fn update_user(&mut self) -> Planned {
        let Some(visitor) = take(&mut self.rng, &mut self.visitors, |_| true) else { return self.create_user() };
        let name = format!("Visitor {}", &self.an_id()[..6]);
        let stale = visitor.former_etag.clone().filter(|_| self.rng.random_ratio(1, 5));
        let expected = if stale.is_some() { Code::Aborted } else { Code::Ok };
        let request = UpdateUserRequest {
            user_id: visitor.user.user_id.clone(),
            etag: stale.unwrap_or_else(|| visitor.user.etag.clone()),
            display_name: Some(name),
            ..Default::default()
        };
        plan(Method::UpdateUser, Ask::UpdateUser(request)).holding(Held::Visitor(visitor)).expecting(expected)
    }

    fn delete_user(&mut self) -> Planned {
        let Some(visitor) = take(&mut self.rng, &mut self.visitors, |_| true) else { return self.create_user() };
        let request = DeleteUserRequest { user_id: visitor.user.user_id.clone() };
        plan(Method::DeleteUser, Ask::DeleteUser(request)).holding(Held::Visitor(visitor))
    }

    fn create_order(&mut self, now: Instant) -> Planned {
        if self.orders.len() >= KEPT_MAX {
            return self.delete_order(now);
        }
        let customer = self.a_customer();
        let item = |sku: &str, quantity, units, nanos| OrderItem {
            sku: sku.to_owned(),
            quantity,
            unit_price: Some(Money { currency_code: "EUR".to_owned(), units, nanos }),
        };
        let quantity = self.rng.random_range(1..=9);
        let items = vec![item("tea", quantity, 4, 990_000_000), item("pot", 1, 24, 500_000_000)];
        let caller = customer.caller(now);
        let request = CreateOrderRequest { request_id: self.an_id(), user_id: customer.user.user_id, items };
        plan(Method::CreateOrder, Ask::CreateOrder(request)).by(caller)
    }

    fn get_order(&mut self, now: Instant) -> Planned {
        let Some(order) = take(&mut self.rng, &mut self.orders, |_| true) else { return self.create_order(now) };
        let request = Ask::GetOrder(GetOrderRequest { order_id: order.order_id.clone() });
        let planned = plan(Method::GetOrder, request);
        let pries = self.rng.random_ratio(1, 10);
        match self.a_customer().caller(now) {
            other @ Caller::User { .. } if pries && !other.is(&order.user_id) => {
                planned.by(other).expecting(Code::NotFound).holding(Held::Order(order))
            }
            _ => planned.by(self.owner(&order, now)).holding(Held::Order(order)),
        }
    }

    fn update_order(&mut self, now: Instant) -> Planned {
        let moves = |order: &Order| next_status(order.status()).is_some();
        let Some(order) = take(&mut self.rng, &mut self.orders, moves) else { return self.create_order(now) };
        let status = next_status(order.status()).unwrap_or(OrderStatus::Delivered);
        let request = UpdateOrderRequest {
            order_id: order.order_id.clone(),
            etag: order.etag.clone(),
            status: status.into(),
            ..Default::default()
        };
        plan(Method::UpdateOrder, Ask::UpdateOrder(request)).holding(Held::Order(order))
    }

    fn cancel_order(&mut self, now: Instant) -> Planned {
        let Some(order) = take(&mut self.rng, &mut self.orders, |_| true) else { return self.create_order(now) };
        let expected = match order.status() {
            OrderStatus::Shipped | OrderStatus::Delivered => Code::FailedPrecondition,
            _ => Code::Ok,
        };
        let request = Ask::CancelOrder(CancelOrderRequest { order_id: order.order_id.clone() });
        plan(Method::CancelOrder, request).by(self.owner(&order, now)).holding(Held::Order(order)).expecting(expected)
    }

    fn delete_order(&mut self, now: Instant) -> Planned {
        let deletable = |order: &Order| !matches!(order.status(), OrderStatus::Paid | OrderStatus::Shipped);
        let Some(order) = take(&mut self.rng, &mut self.orders, deletable) else { return self.list_orders(now) };
        let request = Ask::DeleteOrder(DeleteOrderRequest { order_id: order.order_id.clone() });
        plan(Method::DeleteOrder, request).by(self.owner(&order, now)).holding(Held::Order(order))
    }

    fn list_orders(&mut self, now: Instant) -> Planned {
        let customer = self.a_customer();
        let caller = customer.caller(now);
        let request = ListOrdersRequest { user_id: customer.user.user_id, page_size: 5, ..Default::default() };
        plan(Method::ListOrders, Ask::ListOrders(request)).by(caller)
    }

    fn a_customer(&mut self) -> Customer {
        match self.customers.len() {
            // Only before the first customer is welcome, which the load waits for.
            0 => Customer { user: User::default(), login: None },
            len => self.customers[self.rng.random_range(0..len)].clone(),
        }
    }

    /// Whose an order is, if they are here themselves.
    fn owner(&self, order: &Order, now: Instant) -> Caller {
        let owner = self.customers.iter().find(|customer| customer.user.user_id == order.user_id);
        owner.map_or(Caller::Operator, |customer| customer.caller(now))
    }

    /// 32 hexadecimal digits.
    fn an_id(&mut self) -> String {
        format!("{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64())
    }

    /// Compares an answer with the one right one, and remembers what was written.
    pub(super) fn judge(&mut self, planned: &Planned, answer: Result<Answer, Status>) -> Verdict {
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        if code != planned.expected {
            return Verdict::Wrong(match &answer {
                Ok(_) => "OK".to_owned(),
                Err(status) => format!("{}: {}", code_name(code), status.message()),
            });
        }
        let answered = answer.unwrap_or(Answer::Done);
        if let Err(fault) = compare(planned, &answered) {
            return Verdict::Wrong(format!("OK, but {fault}"));
        }
        match (planned.method, &planned.held, answered) {
            (Method::CreateUser, _, Answer::User(Some(user))) => {
                self.visitors.push(Visitor { user, former_etag: None })
            }
            (Method::UpdateUser, Held::Visitor(visitor), Answer::User(Some(user))) => {
                self.visitors.push(Visitor { user, former_etag: Some(visitor.user.etag.clone()) });
            }
            (Method::UpdateUser, Held::Visitor(visitor), Answer::Done) => {
                self.visitors.push(Visitor { user: visitor.user.clone(), former_etag: visitor.former_etag.clone() })
            }
            (Method::DeleteUser, Held::Visitor(visitor), _) => {
                if self.gone.len() >= GONE_MAX {
                    self.gone.remove(0);
                }
                self.gone.push(visitor.user.user_id.clone());
            }
            (
                Method::CreateOrder | Method::GetOrder | Method::UpdateOrder | Method::CancelOrder,
                _,
                Answer::Order(Some(order)),
            ) => self.orders.push(order),
            (Method::GetOrder | Method::CancelOrder, Held::Order(order), Answer::Done) => {
                self.orders.push(order.clone())
            }
            _ => {}
        }
        Verdict::AsExpected
    }
}

/// Whether the content of an answer is what was asked for; a list is taken as it is, and a refusal has none.
fn compare(planned: &Planned, answered: &Answer) -> Result<(), &'static str> {
    match (&planned.request, &planned.held, answered) {
        (_, _, Answer::User(None) | Answer::Order(None)) => Err("with nothing in it"),
        (Ask::CreateUser(asked), _, Answer::User(Some(user))) => oracle::created_user(asked, user),
        (Ask::GetUser(_), Held::Customer(known), Answer::User(Some(user))) => oracle::read_user(known, user),
        (Ask::UpdateUser(asked), Held::Visitor(visitor), Answer::User(Some(user))) => {
            oracle::updated_user(&visitor.user, asked, user)
        }
        (Ask::CreateOrder(asked), _, Answer::Order(Some(order))) => oracle::created_order(asked, order),
        (Ask::GetOrder(_), Held::Order(known), Answer::Order(Some(order))) => oracle::read_order(known, order),
        (Ask::UpdateOrder(asked), Held::Order(before), Answer::Order(Some(order))) => {
            oracle::moved_order(before, asked.status(), order)
        }
        (Ask::CancelOrder(_), Held::Order(before), Answer::Order(Some(order))) => {
            oracle::cancelled_order(before, order)
        }
        _ => Ok(()),
    }
}

fn plan(method: Method, request: Ask) -> Planned {
    Planned { method, expected: Code::Ok, request, caller: Caller::Operator, held: Held::Nothing }
}

impl Caller {
    fn is(&self, somebody: &str) -> bool {
        matches!(self, Caller::User { user_id, .. } if user_id == somebody)
    }
}

impl Planned {
    fn expecting(self, expected: Code) -> Planned {
        Planned { expected, ..self }
    }

    fn by(self, caller: Caller) -> Planned {
        Planned { caller, ..self }
    }

    fn holding(self, held: Held) -> Planned {
        Planned { held, ..self }
    }
}

/// Takes out any one of those that are `fit`.
fn take<T>(rng: &mut StdRng, from: &mut Vec<T>, fit: impl Fn(&T) -> bool) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let first = rng.random_range(0..from.len());
    let found = (first..from.len()).chain(0..first).find(|&at| fit(&from[at]))?;
    Some(from.swap_remove(found))
}

fn next_status(status: OrderStatus) -> Option<OrderStatus> {
    match status {
        OrderStatus::Pending => Some(OrderStatus::Paid),
        OrderStatus::Paid => Some(OrderStatus::Shipped),
        OrderStatus::Shipped => Some(OrderStatus::Delivered),
        OrderStatus::Unspecified | OrderStatus::Delivered | OrderStatus::Cancelled => None,
    }
}

/// Plain generated stubs on the mesh's channels, and who the operator is.
#[derive(Debug, Clone)]
pub(super) struct Stubs {
    users: UserServiceClient<MeshChannel>,
    orders: OrderServiceClient<MeshChannel>,
    operator: Operator,
}

impl Stubs {
    pub(super) fn new(users: MeshChannel, orders: MeshChannel, operator: Operator) -> Stubs {
        Stubs { users: UserServiceClient::new(users), orders: OrderServiceClient::new(orders), operator }
    }

    pub(super) async fn create_user(&self, request: CreateUserRequest, deadline: Duration) -> Result<User, Status> {
        let answer = self.users.clone().create_user(timed(&request, deadline)).await?.into_inner();
        answer.user.ok_or_else(|| Status::internal("created, but nobody"))
    }

    /// Logs a user in; none where logins are limited right now, as they are per minute and address.
    pub(super) async fn log_in(
        &self,
        email: String,
        password: String,
        deadline: Duration,
    ) -> Result<Option<(Bearer, Instant)>, Status> {
        let asked = clock::now();
        let answer = match self.users.clone().login(timed(&LoginRequest { email, password }, deadline)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::ResourceExhausted => return Ok(None),
            Err(status) => return Err(status),
        };
        let bearer = Bearer::new(&answer.access_token).map_err(Status::internal)?;
        let lifetime = answer.expires_in.and_then(|lasts| Duration::try_from(lasts).ok()).unwrap_or_default();
        Ok(Some((bearer, asked + lifetime.saturating_sub(LOGIN_SPARE))))
    }

    pub(super) async fn send(&self, planned: &Planned, deadline: Duration) -> Result<Answer, Status> {
        let (mut users, mut orders) = (self.users.clone(), self.orders.clone());
        let bearer = match &planned.caller {
            Caller::Operator => self.operator.bearer(),
            Caller::User { bearer, .. } => bearer.clone(),
        };
        let call = Call { bearer, deadline };
        Ok(match &planned.request {
            Ask::CreateUser(request) => {
                Answer::User(users.create_user(timed(request, deadline)).await?.into_inner().user)
            }
            Ask::GetUser(request) => Answer::User(users.get_user(call.of(request)).await?.into_inner().user),
            Ask::UpdateUser(request) => Answer::User(users.update_user(call.of(request)).await?.into_inner().user),
            Ask::DeleteUser(request) => users.delete_user(call.of(request)).await.map(|_| Answer::Done)?,
            Ask::ListUsers(request) => users.list_users(call.of(request)).await.map(|_| Answer::Done)?,
            Ask::CreateOrder(request) => Answer::Order(orders.create_order(call.of(request)).await?.into_inner().order),
            Ask::GetOrder(request) => Answer::Order(orders.get_order(call.of(request)).await?.into_inner().order),
            Ask::UpdateOrder(request) => Answer::Order(orders.update_order(call.of(request)).await?.into_inner().order),
            Ask::CancelOrder(request) => Answer::Order(orders.cancel_order(call.of(request)).await?.into_inner().order),
            Ask::DeleteOrder(request) => orders.delete_order(call.of(request)).await.map(|_| Answer::Done)?,
            Ask::ListOrders(request) => orders.list_orders(call.of(request)).await.map(|_| Answer::Done)?,
        })
    }
}

/// What the headers of a call hold.
struct Call {
    bearer: Bearer,
    deadline: Duration,
}

impl Call {
    fn of<M: Clone>(&self, message: &M) -> Request<M> {
        let mut request = timed(message, self.deadline);
        self.bearer.attach(&mut request);
        request
    }
}

/// Of a method that everybody may call.
fn timed<M: Clone>(message: &M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message.clone());
    request.set_timeout(deadline);
    request
}

#[cfg(test)]
mod tests;
