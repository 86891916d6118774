//! The shop over REST, as whoever runs it may use it.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use meshctl::{LocalMesh, RestAnswer, RestClient};
use serde_json::{Value, json};

pub(crate) struct Shop(RestClient);

impl Shop {
    /// The shop behind these gateways.
    pub(crate) fn of(gateways: Vec<SocketAddr>, mesh: &LocalMesh) -> Shop {
        Shop(RestClient::new(gateways, Some(mesh.operator().bearer())))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> RestAnswer {
        self.0.send(method, path, body.as_ref()).await.expect("the gateway answers")
    }

    /// As expected, and its body.
    async fn get(&self, method: Method, path: &str, body: Option<Value>, expected: StatusCode) -> Value {
        let answer = self.ask(method.clone(), path, body).await;
        assert_eq!(answer.status, expected, "{method} {path}: {:?}", answer.json());
        assert_eq!(answer.headers["content-type"], "application/json");
        answer.json()
    }

    /// An error: its status, and what every error says.
    async fn refused(&self, method: Method, path: &str, body: Option<Value>, expected: (u16, i64, &str)) {
        let (status, code, reason) = expected;
        let expected = StatusCode::from_u16(status).expect("it is one");
        let error = self.get(method.clone(), path, body, expected).await;
        let told = |detail: &Value| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo";
        let info = error["details"].as_array().and_then(|details| details.iter().find(|detail| told(detail)));
        let info = info.unwrap_or_else(|| panic!("{method} {path}: no ErrorInfo in {error}"));
        assert_eq!(
            (&error["code"], &info["domain"], &info["reason"]),
            (&json!(code), &json!("meshwork"), &json!(reason))
        );
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }

    /// A user and an order of theirs.
    pub(crate) async fn a_customer(&self) -> (String, String) {
        let user = json!({"requestId": "a-customer-of-the-gateway", "email": "eve@shop.test", "displayName": "Eve", "password": "correct horse"});
        let user = self.get(Method::POST, "/v1/users", Some(user), StatusCode::OK).await;
        let user = text(&user["user"]["userId"]);
        let order = self.get(Method::POST, "/v1/orders", Some(order(&user, "the-first-order")), StatusCode::OK).await;
        (user, text(&order["order"]["orderId"]))
    }

    /// One request of a load; what was wrong with its answer otherwise.
    pub(crate) async fn one_request(&self, number: u64, user: &str, order_id: &str) -> Result<(), String> {
        let (method, path, body) = match number % 5 {
            0 | 1 => (Method::GET, format!("/v1/users/{user}"), None),
            2 => (Method::GET, format!("/orders/{order_id}"), None),
            3 => (Method::POST, "/v1/orders".to_owned(), Some(order(user, &format!("an-order-of-the-load-{number}")))),
            _ => (Method::GET, format!("/v1/users/{user}/orders?pageSize=2"), None),
        };
        match self.0.send(method.clone(), &path, body.as_ref()).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(format!("{method} {path}: {} {}", answer.status, answer.json())),
            Err(error) => Err(format!("{method} {path}: {error}")),
        }
    }

    /// Everything that a shop does, once, with what it refuses.
    pub(crate) async fn is_kept(&self) {
        const OK: StatusCode = StatusCode::OK;
        let new = json!({"requestId": "ada-over-rest-00001", "email": "ada@shop.test", "displayName": "Ada", "password": "correct horse"});
        let user = self.get(Method::POST, "/v1/users", Some(new.clone()), OK).await["user"].clone();
        let again = self.get(Method::POST, "/users", Some(new), OK).await["user"].clone();
        assert_eq!(user, again, "the same request is the same account");
        let path = format!("/v1/users/{}", text(&user["userId"]));
        assert_eq!(self.get(Method::GET, &path, None, OK).await["user"], user);
        assert_eq!(self.get(Method::GET, &path.replace("/v1", ""), None, OK).await["user"], user);
        let users = self.get(Method::GET, "/users?pageSize=1", None, OK).await;
        assert_eq!(users["users"], json!([user]));

        let change = json!({"etag": user["etag"], "updateMask": "displayName", "displayName": "Ada L."});
        let patched = self.get(Method::PATCH, &path, Some(change), OK).await["user"].clone();
        assert_eq!(patched["displayName"], "Ada L.");
        let change = json!({"etag": patched["etag"], "email": "ada.l@shop.test", "displayName": "Ada Lovelace"});
        let put = self.get(Method::PUT, &path, Some(change.clone()), OK).await["user"].clone();
        assert_eq!((text(&put["email"]), text(&put["displayName"])), ("ada.l@shop.test".into(), "Ada Lovelace".into()));

        let user_id = text(&user["userId"]);
        let placed = self.get(Method::POST, "/v1/orders", Some(order(&user_id, "an-order-over-rest")), OK).await;
        let order_path = format!("/v1/orders/{}", text(&placed["order"]["orderId"]));
        assert_eq!(placed["order"]["total"]["units"], "7", "64-bit numbers are text in JSON");
        assert_eq!(self.get(Method::GET, &order_path, None, OK).await, placed);
        let listed = self.get(Method::GET, &format!("{path}/orders"), None, OK).await;
        assert_eq!(listed["orders"], json!([placed["order"]]));
        let aliased = self.get(Method::GET, &format!("/orders?userId={user_id}"), None, OK).await;
        assert_eq!(aliased["orders"], listed["orders"]);
        let cancelled = self.get(Method::POST, &format!("{order_path}:cancel"), Some(json!({})), OK).await;
        assert_eq!(cancelled["order"]["status"], "ORDER_STATUS_CANCELLED");
        self.get(Method::DELETE, &order_path, None, OK).await;

        let nobody = "/v1/users/00000000-0000-7000-8000-000000000001";
        self.refused(Method::GET, nobody, None, (404, 5, "NOT_FOUND")).await;
        self.refused(Method::GET, "/v1/users/nobody", None, (400, 3, "INVALID_ARGUMENT")).await;
        let taken = json!({"requestId": "eve-over-rest-00001", "email": "ada.l@shop.test", "displayName": "Eve", "password": "correct horse"});
        self.refused(Method::POST, "/v1/users", Some(taken), (409, 6, "EMAIL_TAKEN")).await;
        let stale = json!({"etag": user["etag"], "displayName": "Nobody"});
        self.refused(Method::PATCH, &path, Some(stale), (409, 10, "ETAG_MISMATCH")).await;
        self.refused(Method::POST, "/v1/users", Some(json!({"e-mail": "x"})), (400, 3, "INVALID_REQUEST")).await;
        self.refused(Method::GET, "/v1/nothing", None, (404, 5, "ROUTE_UNKNOWN")).await;
        let answer = self.ask(Method::PUT, "/v1/users", Some(json!({}))).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer.headers["allow"].to_str().is_ok_and(|allow| allow.contains("POST")), "{:?}", answer.headers);

        self.get(Method::DELETE, &path, None, OK).await;
    }
}

/// Two teas for a user.
fn order(user: &str, request: &str) -> Value {
    let tea =
        json!({"sku": "tea", "quantity": 2, "unitPrice": {"currencyCode": "EUR", "units": "3", "nanos": 500_000_000}});
    json!({"requestId": format!("{request}-000000000"), "userId": user, "items": [tea]})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
