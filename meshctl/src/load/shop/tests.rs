use std::collections::{BTreeMap, VecDeque};

use mesh_runtime::{clock, entropy};

use super::*;

/// How many of the customers have logged in.
const LOGINS: usize = 2;

/// The least server that answers every method rightly.
#[derive(Default)]
struct PerfectServer {
    users: BTreeMap<String, User>,
    orders: BTreeMap<String, Order>,
    issued: u64,
}

impl PerfectServer {
    fn an_id(&mut self) -> String {
        self.issued += 1;
        format!("{}", self.issued)
    }

    fn create(&mut self, request: &CreateUserRequest) -> User {
        let (email, display_name) = (request.email.clone(), request.display_name.clone());
        let user = User { user_id: self.an_id(), email, display_name, etag: self.an_id(), ..User::default() };
        self.users.insert(user.user_id.clone(), user.clone());
        user
    }

    /// What a user may see of orders: their own.
    fn shows(&self, caller: &Caller, order_id: &str) -> bool {
        let Caller::User { user_id, .. } = caller else { return true };
        self.orders.get(order_id).is_none_or(|order| order.user_id == *user_id)
    }

    fn answer(&mut self, Planned { request: ask, caller, .. }: &Planned) -> Result<Answer, Status> {
        if let (Caller::User { user_id: themselves, .. }, theirs) = (caller, ask) {
            match theirs {
                Ask::GetUser(request) => assert_eq!(request.user_id, *themselves),
                Ask::CreateOrder(request) => assert_eq!(request.user_id, *themselves),
                Ask::ListOrders(request) => assert_eq!(request.user_id, *themselves),
                Ask::CancelOrder(request) => assert!(self.shows(caller, &request.order_id)),
                Ask::DeleteOrder(request) => assert!(self.shows(caller, &request.order_id)),
                Ask::GetOrder(_) => {}
                not_theirs => panic!("{not_theirs:?} is the operator's"),
            }
        }
        let missing = || Status::not_found("no such thing");
        let illegal = || Status::failed_precondition("not from here");
        let etag = self.an_id();
        Ok(match ask {
            Ask::CreateUser(request) => Answer::User(Some(self.create(request))),
            Ask::GetUser(request) => Answer::User(Some(self.users.get(&request.user_id).ok_or_else(missing)?.clone())),
            Ask::UpdateUser(request) => {
                let user = self.users.get_mut(&request.user_id).ok_or_else(missing)?;
                if user.etag != request.etag {
                    return Err(Status::aborted("somebody was faster"));
                }
                user.etag = etag;
                user.display_name.clone_from(request.display_name.as_ref().unwrap_or(&user.display_name.clone()));
                Answer::User(Some(user.clone()))
            }
            Ask::DeleteUser(request) => {
                self.users.remove(&request.user_id).map(|_| Answer::Done).ok_or_else(missing)?
            }
            Ask::CreateOrder(request) => {
                assert!(self.users.contains_key(&request.user_id), "customers are never deleted");
                let status = OrderStatus::Pending.into();
                let (order_id, user_id, items) = (self.an_id(), request.user_id.clone(), request.items.clone());
                let total = oracle::total(&items);
                let order = Order { order_id, user_id, items, total, status, etag, ..Order::default() };
                self.orders.insert(order.order_id.clone(), order.clone());
                Answer::Order(Some(order))
            }
            Ask::GetOrder(request) if !self.shows(caller, &request.order_id) => return Err(missing()),
            Ask::GetOrder(request) => {
                Answer::Order(Some(self.orders.get(&request.order_id).ok_or_else(missing)?.clone()))
            }
            Ask::UpdateOrder(request) => {
                let order = self.orders.get_mut(&request.order_id).ok_or_else(missing)?;
                assert_eq!(order.etag, request.etag);
                assert_eq!(next_status(order.status()), Some(request.status()));
                (order.status, order.etag) = (request.status, etag);
                Answer::Order(Some(order.clone()))
            }
            Ask::CancelOrder(request) => {
                let order = self.orders.get_mut(&request.order_id).ok_or_else(missing)?;
                if matches!(order.status(), OrderStatus::Shipped | OrderStatus::Delivered) {
                    return Err(illegal());
                }
                if order.status() != OrderStatus::Cancelled {
                    (order.status, order.etag) = (OrderStatus::Cancelled.into(), etag);
                }
                Answer::Order(Some(order.clone()))
            }
            Ask::DeleteOrder(request) => {
                let order = self.orders.get(&request.order_id).ok_or_else(missing)?;
                if matches!(order.status(), OrderStatus::Paid | OrderStatus::Shipped) {
                    return Err(illegal());
                }
                self.orders.remove(&request.order_id);
                Answer::Done
            }
            Ask::ListUsers(_) | Ask::ListOrders(_) => Answer::Done,
        })
    }
}

/// Long after the tests.
fn end_of_logins() -> Instant {
    clock::now() + Duration::from_secs(3600)
}

fn open_shop(server: &mut PerfectServer) -> Shop {
    let mut shop = Shop::new(entropy::rng(7));
    for number in 0..3 {
        let request = shop.a_new_user();
        let login = (number < LOGINS).then(|| (Bearer::new("a.b.c").expect("it is a token"), end_of_logins()));
        shop.welcome(server.create(&request), login);
    }
    shop
}

#[test]
fn a_perfect_server_is_never_found_wrong_with_any_number_of_calls_in_flight() {
    let mut server = PerfectServer::default();
    let mut shop = open_shop(&mut server);
    let (mut in_flight, mut met, mut writes, mut own) = (VecDeque::new(), BTreeMap::new(), 0, 0);
    const CALLS: u32 = 20_000;
    for _ in 0..CALLS {
        let planned = shop.next_call(clock::now());
        let answer = server.answer(&planned);
        own += u32::from(matches!(planned.caller, Caller::User { .. }));
        *met.entry((planned.method.name(), code_name(planned.expected))).or_insert(0) += 1;
        writes += u32::from(planned.method.writes());
        in_flight.push_back((planned, answer));
        if in_flight.len() > 50 {
            let (planned, answer) = in_flight.pop_front().expect("fifty are waiting");
            assert_eq!(shop.judge(&planned, answer), Verdict::AsExpected, "{planned:?}");
        }
    }
    assert!(shop.visitors.len() <= KEPT_MAX + 50 && shop.orders.len() <= KEPT_MAX + 50);
    assert!(writes * 5 >= CALLS, "{writes} of {CALLS} write");
    assert!(own * 4 >= CALLS, "{own} of {CALLS} are made by users");
    for method in Method::ALL {
        assert!(met.get(&(method.name(), "OK")).is_some_and(|&calls| calls > 100), "{method:?}: {met:?}");
    }
    for wrong_on_purpose in [
        ("GetUser", "NOT_FOUND"),
        ("GetOrder", "NOT_FOUND"),
        ("UpdateUser", "ABORTED"),
        ("CancelOrder", "FAILED_PRECONDITION"),
    ] {
        assert!(met.contains_key(&wrong_on_purpose), "{wrong_on_purpose:?}: {met:?}");
    }
}

#[test]
fn another_status_than_the_expected_one_is_wrong() {
    let mut server = PerfectServer::default();
    let mut shop = open_shop(&mut server);
    let planned = shop.get_user(clock::now());
    let verdict = shop.judge(&planned, Err(Status::unavailable("nobody there")));
    assert_eq!(verdict, Verdict::Wrong("UNAVAILABLE: nobody there".to_owned()));
    let in_vain = planned.expecting(Code::NotFound);
    assert_eq!(shop.judge(&in_vain, Ok(Answer::Done)), Verdict::Wrong("OK".to_owned()));
}

#[test]
fn an_answer_that_is_not_what_was_written_is_wrong() {
    let mut server = PerfectServer::default();
    let mut shop = open_shop(&mut server);
    let planned = shop.get_user(clock::now());
    let verdict = shop.judge(&planned, Ok(Answer::User(Some(User::default()))));
    assert_eq!(verdict, Verdict::Wrong("OK, but not the user that was written".to_owned()));
    let planned = shop.create_user();
    let somebody_else = User { user_id: "1".to_owned(), etag: "1".to_owned(), ..User::default() };
    let verdict = shop.judge(&planned, Ok(Answer::User(Some(somebody_else))));
    assert_eq!(verdict, Verdict::Wrong("OK, but not the user that was asked for".to_owned()));
    assert!(shop.visitors.is_empty(), "what is in doubt is not used again");
    let verdict = shop.judge(&planned, Ok(Answer::User(None)));
    assert_eq!(verdict, Verdict::Wrong("OK, but with nothing in it".to_owned()));
}

#[test]
fn the_shares_are_a_hundred_percent() {
    assert_eq!(Method::ALL.iter().map(|method| method.share()).sum::<u32>(), 100);
    for (position, method) in Method::ALL.into_iter().enumerate() {
        assert_eq!(method as usize, position, "the ledger counts by position");
    }
}

#[test]
fn who_is_logged_in_no_more_is_served_by_the_operator() {
    let mut server = PerfectServer::default();
    let mut shop = open_shop(&mut server);
    let later = end_of_logins() + Duration::from_secs(1);
    for _ in 0..200 {
        let planned = shop.next_call(later);
        assert!(matches!(planned.caller, Caller::Operator), "{planned:?}");
        let answer = server.answer(&planned);
        assert_eq!(shop.judge(&planned, answer), Verdict::AsExpected, "{planned:?}");
    }
}
