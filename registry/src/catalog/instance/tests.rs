use std::time::Duration;

use super::*;
use crate::catalog::{InstanceId, Namespace, ServiceName, Ttl};

fn endpoint(name: &str) -> Endpoint {
    Endpoint::new(name, Protocol::Grpc, IpAddr::from([10, 0, 0, 1]), 7_410).unwrap()
}

fn labels(count: usize, bytes: usize) -> BTreeMap<String, String> {
    let value = "x".repeat(bytes / count - 3);
    (0..count).map(|number| (format!("k{number:02}"), value.clone())).collect()
}

#[test]
fn names_are_dotted_labels() {
    for valid in ["a", "user-svc", "order-svc.eu", "0", &"a".repeat(63), &["a".repeat(63).as_str(); 4].join(".")[..253]]
    {
        assert!(ServiceName::parse(valid).is_ok(), "{valid}");
    }
    let long = "a".repeat(64);
    let longer = ["abcdefghi"; 26].join(".");
    for invalid in ["", ".", "a.", ".a", "a..b", "User", "user_svc", "user svc", "ü", "a\n", &long, &longer] {
        assert!(ServiceName::parse(invalid).is_err(), "{invalid}");
    }
}

#[test]
fn an_empty_namespace_is_the_default_one() {
    assert_eq!(Namespace::parse("").unwrap().as_str(), "default");
    assert_eq!(Namespace::parse("staging").unwrap().as_str(), "staging");
    for invalid in ["a.b", "A", &"a".repeat(64)] {
        assert!(Namespace::parse(invalid).is_err(), "{invalid}");
    }
}

#[test]
fn an_instance_id_is_a_uuid_and_not_the_nil_one() {
    assert!(InstanceId::parse("0199a6a0-0000-7000-8000-000000000001").is_ok());
    for invalid in ["", "1", "00000000-0000-0000-0000-000000000000"] {
        assert!(InstanceId::parse(invalid).is_err(), "{invalid}");
    }
}

#[test]
fn a_ttl_is_two_seconds_to_five_minutes() {
    for valid in [2, 10, 300] {
        assert!(Ttl::new(Duration::from_secs(valid)).is_ok());
    }
    for asked in [Duration::ZERO, Duration::from_millis(1_999), Duration::from_millis(300_001)] {
        assert_eq!(Ttl::new(asked), Err(Invalid::TtlOutOfRange { asked }));
    }
}

#[test]
fn beats_come_three_times_a_ttl_and_are_late_after_half_of_it() {
    let ttl = Ttl::new(Duration::from_secs(3)).unwrap();
    assert_eq!(ttl.heartbeat_interval(), Duration::from_secs(1));
    assert_eq!(ttl.late_after(), ttl.heartbeat_interval() * 3 / 2);
}

#[test]
fn metadata_is_32_keys_and_8_kib() {
    assert!(Metadata::new(labels(32, 8_192)).is_ok());
    let too_many = Invalid::TooMany { field: "metadata", count: 33, max: 32 };
    assert_eq!(Metadata::new(labels(33, 3_300)), Err(too_many));
    assert!(matches!(Metadata::new(labels(32, 8_224)), Err(Invalid::Length { field: "metadata", .. })));
}

#[test]
fn metadata_has_no_control_characters_and_no_empty_key() {
    for (key, value) in [("", "x"), ("a\n", "x"), ("a", "x\u{1b}[31m"), ("a", "\0")] {
        let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(Metadata::new(labels).is_err(), "{key:?} {value:?}");
    }
}

#[test]
fn an_endpoint_is_an_address_that_can_be_called() {
    for ip in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
        let ip = ip.parse().unwrap();
        assert!(matches!(Endpoint::new("grpc", Protocol::Grpc, ip, 1), Err(Invalid::Address { .. })), "{ip}");
    }
    for port in [0, 65_536] {
        assert_eq!(Endpoint::new("grpc", Protocol::Grpc, [10, 0, 0, 1].into(), port), Err(Invalid::Port { port }));
    }
}

#[test]
fn an_ipv4_address_in_ipv6_clothing_is_taken_for_what_it_is() {
    let endpoint = Endpoint::new("grpc", Protocol::Grpc, "::ffff:127.0.0.1".parse().unwrap(), 1).unwrap();
    assert_eq!(endpoint.address().ip(), IpAddr::from([127, 0, 0, 1]));
}

#[test]
fn an_instance_has_one_to_sixteen_endpoints_with_names_of_their_own() {
    assert_eq!(InstanceSpec::new(Vec::new()), Err(Invalid::NoEndpoint));
    let numbered = |count: usize| (0..count).map(|number| endpoint(&format!("grpc-{number}"))).collect::<Vec<_>>();
    assert!(InstanceSpec::new(numbered(16)).is_ok());
    assert!(matches!(InstanceSpec::new(numbered(17)), Err(Invalid::TooMany { count: 17, .. })));
    assert!(InstanceSpec::new(vec![endpoint("grpc"), endpoint("grpc")]).is_err());
}

#[test]
fn an_instance_that_speaks_no_grpc_serves_no_grpc_services() {
    let http = Endpoint::new("http", Protocol::Http, [10, 0, 0, 1].into(), 1).unwrap();
    let service = GrpcService::new("shop.S", Vec::new(), ServingStatus::Serving).unwrap();
    let gateway = InstanceSpec::new(vec![http]).unwrap();
    assert!(gateway.clone().with_grpc_services(Vec::new()).is_ok());
    assert_eq!(gateway.with_grpc_services(vec![service]), Err(Invalid::NoGrpcEndpoint));
}

#[test]
fn grpc_services_and_their_methods_are_bounded() {
    let spec = InstanceSpec::new(vec![endpoint("grpc")]).unwrap();
    let services = |count: usize| {
        let service =
            |number| GrpcService::new(&format!("shop.S{number}"), Vec::new(), ServingStatus::Serving).unwrap();
        (0..count).map(service).collect::<Vec<_>>()
    };
    assert!(spec.clone().with_grpc_services(services(32)).is_ok());
    assert!(spec.clone().with_grpc_services(services(33)).is_err());
    assert!(spec.with_grpc_services([services(1), services(1)].concat()).is_err());

    let method = Method::new("GetUser", IdempotencyLevel::NoSideEffects).unwrap();
    assert!(GrpcService::new("shop.S", vec![method.clone(); 128], ServingStatus::Serving).is_ok());
    assert!(GrpcService::new("shop.S", vec![method; 129], ServingStatus::Serving).is_err());
}

#[test]
fn a_weight_is_1_to_65535_and_100_unless_given() {
    assert_eq!(Weight::from_wire(0), Ok(Weight::DEFAULT));
    assert_eq!(Weight::from_wire(65_535).unwrap().get(), 65_535);
    assert_eq!(Weight::from_wire(65_536), Err(Invalid::WeightOutOfRange { asked: 65_536 }));
}

#[test]
fn what_is_refused_is_quoted_in_part() {
    let Err(refused) = ServiceName::parse(&"A".repeat(100_000)) else { panic!("it is too long") };
    assert!(refused.to_string().len() < 200);
    let Err(refused) = ServiceName::parse("a\u{1b}[31m\n") else { panic!("it has control characters") };
    assert!(!refused.to_string().contains(char::is_control), "{refused}");
}

#[test]
fn a_nil_id_is_quoted_as_it_was_sent() {
    let nil = "00000000-0000-0000-0000-000000000000";
    let refused = InstanceId::parse(nil).unwrap_err().to_string();
    assert!(refused.contains(nil), "{refused}");
}

#[test]
fn labels_come_back_as_they_were_given() {
    let given = BTreeMap::from([("a", ""), ("b", "1"), ("c", ""), ("d", "x y")]);
    let owned = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let metadata = Metadata::new(owned.collect()).unwrap();
    assert!(metadata.labels().eq(given));
    assert_eq!(Metadata::default().labels().count(), 0);
}

#[test]
fn siblings_share_what_is_equal_and_nothing_else() {
    let service = |name: &str| {
        let methods = vec![Method::new("GetUser", IdempotencyLevel::NoSideEffects).unwrap()];
        GrpcService::new(name, methods, ServingStatus::Serving).unwrap()
    };
    let spec = |zone: &str, commit: &str| {
        let labels = BTreeMap::from([("commit".to_owned(), commit.to_owned())]);
        let mut spec = InstanceSpec::new(vec![endpoint("grpc")])
            .unwrap()
            .with_grpc_services(vec![service("a"), service("b")])
            .unwrap();
        spec.zone = Zone::parse(zone).unwrap();
        spec.metadata = Metadata::new(labels).unwrap();
        spec
    };
    let sibling = spec("eu-1a", "1");
    let given = spec("eu-1b", "1");
    let mut shared = given.clone();
    shared.share(&sibling);
    assert_eq!(shared, given);
    assert!(Arc::ptr_eq(&shared.grpc_services, &sibling.grpc_services));
    assert!(shared.metadata.values.shares(&sibling.metadata.values));
    assert!(!shared.zone.0.shares(&sibling.zone.0));

    let mut other = sibling.clone();
    assert!(other.report(&BTreeMap::from([(sibling.grpc_services[0].name().to_owned(), ServingStatus::Draining)])));
    assert_eq!(sibling.grpc_services[0].status(), ServingStatus::Serving, "what one says of itself is its own");
    let mut again = other.clone();
    again.share(&sibling);
    assert_eq!(again, other);
    assert!(Arc::ptr_eq(&again.grpc_services[0].methods, &sibling.grpc_services[0].methods));
}
