//! What is written is what is read, and nothing else is.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn instance() -> impl Strategy<Value = Instance> {
    let serving =
        prop::sample::select(vec![ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Draining]);
    let admin = prop::sample::select(vec![Admin::Enabled, Admin::Draining, Admin::Disabled]);
    let address = (prop::bool::ANY, 1..u16::MAX).prop_map(|(v4, port)| match v4 {
        true => SocketAddr::from(([10, 0, 0, 1], port)),
        false => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], port)),
    });
    (any::<u128>(), 1..u64::MAX, any::<u64>(), address, "[a-z0-9-]{0,8}", 1..u16::MAX, serving, admin, any::<bool>())
        .prop_map(|(id, incarnation, revision, address, zone, weight, serving, admin, declared)| {
            let mut methods = MethodLevels::default();
            if declared {
                methods.declare("a.B", "Get", Idempotency::NoSideEffects);
                methods.declare("a.B", "Put", Idempotency::Idempotent);
            }
            let (id, zone, methods) = (Uuid::from_u128(id), zone.into(), Arc::new(methods));
            let descriptors = declared.then_some(DescriptorDigest([7; 32]));
            Instance { id, incarnation, revision, address, zone, weight, serving, admin, methods, descriptors }
        })
}

pub(in crate::resolver::known) fn record() -> impl Strategy<Value = Record> {
    let epoch =
        || ("[a-f0-9]{1,8}", any::<u64>()).prop_map(|(store, generation)| Epoch { store: store.into(), generation });
    let known = (epoch(), instance()).prop_map(|(epoch, instance)| Known { epoch, instance });
    (epoch(), any::<u64>(), 0..1_u64 << 45, prop::collection::vec(known, 0..5)).prop_map(
        |(epoch, revision, vouched_ms, instances)| Record {
            namespace: "default".into(),
            service: "user-svc".into(),
            position: Position { epoch, revision },
            vouched: UNIX_EPOCH + Duration::from_millis(vouched_ms),
            instances,
        },
    )
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn a_record_that_is_cut_short_anywhere_is_refused(record in record(), at in any::<prop::sample::Index>()) {
        let file = record.encode();
        prop_assert!(Record::decode(&file[..at.index(file.len())]).is_err());
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_refused(record in record(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut file = record.encode();
        let at = at.index(file.len());
        file[at] ^= 1_u8 << bit;
        prop_assert!(Record::decode(&file).is_err());
    }

    #[test]
    fn bytes_that_are_no_record_are_refused(file in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(Record::decode(&file).is_err());
    }

    #[test]
    fn a_body_that_nobody_wrote_is_refused_or_valid(body in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(body) = Body::decode(&body[..])
            && let Ok(record) = Record::try_from(body)
        {
            prop_assert!(record.instances.iter().all(|known| known.instance.incarnation > 0));
        }
    }
}

fn one() -> Record {
    let instance = Instance {
        id: Uuid::from_u128(1),
        incarnation: 1,
        revision: 1,
        address: "127.0.0.1:7410".parse().unwrap(),
        zone: "".into(),
        weight: 100,
        serving: ServingStatus::Serving,
        admin: Admin::Enabled,
        methods: Arc::default(),
        descriptors: None,
    };
    let epoch = Epoch { store: "a".into(), generation: 1 };
    Record {
        namespace: "default".into(),
        service: "user-svc".into(),
        position: Position { epoch: epoch.clone(), revision: 1 },
        vouched: UNIX_EPOCH + 1_000 * HOUR,
        instances: vec![Known { epoch, instance }],
    }
}

#[test]
fn every_bit_of_the_header_counts() {
    let file = one().encode();
    for at in 0..HEADER * 8 {
        let mut spoilt = file.clone();
        spoilt[at / 8] ^= 1 << (at % 8);
        assert!(Record::decode(&spoilt).is_err(), "bit {at}");
    }
}

#[test]
fn a_later_format_is_told_from_a_spoilt_file() {
    let mut file = one().encode();
    file[11] = 2;
    assert!(matches!(Record::decode(&file), Err(Unusable::Newer { version: 2 })));
    assert!(matches!(Record::decode(b"something else entirely"), Err(Unusable::NoRecord)));
    assert!(matches!(Record::decode(&file[..10]), Err(Unusable::Length { .. })));
}

#[test]
fn a_file_is_used_for_a_day_whatever_small_steps_the_clock_takes() {
    let record = one();
    let aged = |hours: i64| {
        let by = HOUR * hours.unsigned_abs() as u32;
        record.check_age(if hours < 0 { record.vouched - by } else { record.vouched + by })
    };
    assert_eq!(aged(24).unwrap(), AGE_MAX);
    assert_eq!(aged(-1).unwrap(), Duration::ZERO);
    let told = aged(30).unwrap_err().to_string();
    assert_eq!(told, "the registry vouched for it 30 h ago, and 24 h is the limit");
    assert!(matches!(aged(-25), Err(Unusable::Future { .. })));
}

#[test]
fn equal_methods_are_written_once() {
    let mut record = one();
    let first = record.instances[0].clone();
    record.instances = vec![first; 100];
    assert_eq!(Body::from(&record).methods.len(), 1);
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
}

type Spoil = fn(&mut Body);

#[test]
fn content_that_fits_its_checksum_is_checked_all_the_same() {
    let spoilt: [Spoil; 9] = [
        |body| body.epochs.clear(),
        |body| body.instances[0].epoch = 1,
        |body| body.instances[0].methods = 1,
        |body| body.instances[0].id.clear(),
        |body| body.instances[0].incarnation = 0,
        |body| body.instances[0].address = "0.0.0.0:7410".into(),
        |body| body.instances[0].address = "127.0.0.1:0".into(),
        |body| body.instances[0].weight = 0,
        |body| body.instances[0].serving = 9,
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let mut body = Body::from(&one());
        spoil(&mut body);
        assert!(matches!(Record::try_from(body), Err(Unusable::Invalid(_))), "{number}");
    }
}
