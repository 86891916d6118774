//! The backend: orders, answered from memory, with the descriptors and the `google.api.http` rules of the real ones.

use std::ffi::OsString;
use std::process::ExitCode;

use mesh_api::FILE_DESCRIPTOR_SET;
use mesh_api::shop::order::v1 as wire;
use mesh_api::shop::order::v1::order_service_server::{OrderService, OrderServiceServer, SERVICE_NAME};
use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::{App, Error, ProcessArgs, Program, Shell, Speaks};
use prost_types::Timestamp;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Its name in the registry, for which the gateway reserves its routes.
pub(super) const NAME: &str = "order-svc";

const PROGRAM: Program = Program {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    about: "Orders from memory, to be asked for through a gateway",
    speaks: Speaks::Grpc,
    main_port: 7490,
    admin_port: 7491,
};

/// The order that everybody gets.
pub(super) const ORDER_ID: &str = "0190a7b2-0000-7000-8000-000000000001";
const USER_ID: &str = "0190a7b2-0000-7000-8000-000000000002";
/// When it was placed, in seconds since 1970; any moment would do.
const PLACED_AT: i64 = 1_760_000_000;

/// Runs it; the first argument is the program's name.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(process: ProcessArgs) -> Result<(), Error> {
    let shell = Shell::bind(&PROGRAM, &process.server, process.advertise).await?;
    let mesh = Mesh::builder().registry(&process.registry).build().map_err(Error::startup)?;
    let orders = OrderServiceServer::new(FromMemory { answer: order() });
    let app = App::new(Routes::new(orders)).authority(NAME).grpc_service(SERVICE_NAME).descriptors(FILE_DESCRIPTOR_SET);
    let registrar = mesh.registrar(InstanceSpec {
        descriptors: FILE_DESCRIPTOR_SET,
        grpc_services: vec![SERVICE_NAME.to_owned()],
        ..InstanceSpec::new(NAME)
    });
    shell.serve(app, registrar.hooks().into()).await
}

/// The request that places it.
pub(super) fn creation() -> wire::CreateOrderRequest {
    wire::CreateOrderRequest {
        request_id: "bench-0000000000000001".to_owned(),
        user_id: USER_ID.to_owned(),
        items: items(),
    }
}

/// The same, as JSON.
pub(super) fn creation_json() -> String {
    let items: Vec<_> = items()
        .into_iter()
        .map(|item| {
            let price = item.unit_price.unwrap_or_default();
            serde_json::json!({
                "sku": item.sku,
                "quantity": item.quantity,
                "unitPrice": { "currencyCode": price.currency_code, "units": price.units.to_string(), "nanos": price.nanos },
            })
        })
        .collect();
    let creation = creation();
    serde_json::json!({ "requestId": creation.request_id, "userId": creation.user_id, "items": items }).to_string()
}

fn items() -> Vec<wire::OrderItem> {
    let item = |sku: &str, quantity, units, nanos| wire::OrderItem {
        sku: sku.to_owned(),
        quantity,
        unit_price: Some(wire::Money { currency_code: "EUR".to_owned(), units, nanos }),
    };
    vec![item("lamp-black-12", 2, 39, 900_000_000), item("bulb-e27-warm", 4, 3, 490_000_000), item("cable-2m", 1, 7, 0)]
}

fn order() -> wire::Order {
    let placed = Some(Timestamp { seconds: PLACED_AT, nanos: 125_000_000 });
    wire::Order {
        order_id: ORDER_ID.to_owned(),
        user_id: USER_ID.to_owned(),
        items: items(),
        total: Some(wire::Money { currency_code: "EUR".to_owned(), units: 100, nanos: 760_000_000 }),
        status: wire::OrderStatus::Pending.into(),
        create_time: placed,
        update_time: placed,
        etag: "1".to_owned(),
    }
}

/// Two of the methods; nobody calls the others.
struct FromMemory {
    answer: wire::Order,
}

impl FromMemory {
    fn answer(&self) -> Option<wire::Order> {
        Some(self.answer.clone())
    }
}

fn not_here<M>() -> Result<Response<M>, Status> {
    Err(Status::unimplemented("the bench asks for one order, and places one"))
}

#[tonic::async_trait]
impl OrderService for FromMemory {
    async fn create_order(
        &self,
        _: Request<wire::CreateOrderRequest>,
    ) -> Result<Response<wire::CreateOrderResponse>, Status> {
        Ok(Response::new(wire::CreateOrderResponse { order: self.answer() }))
    }

    async fn get_order(&self, _: Request<wire::GetOrderRequest>) -> Result<Response<wire::GetOrderResponse>, Status> {
        Ok(Response::new(wire::GetOrderResponse { order: self.answer() }))
    }

    async fn update_order(
        &self,
        _: Request<wire::UpdateOrderRequest>,
    ) -> Result<Response<wire::UpdateOrderResponse>, Status> {
        not_here()
    }

    async fn cancel_order(
        &self,
        _: Request<wire::CancelOrderRequest>,
    ) -> Result<Response<wire::CancelOrderResponse>, Status> {
        not_here()
    }

    async fn delete_order(
        &self,
        _: Request<wire::DeleteOrderRequest>,
    ) -> Result<Response<wire::DeleteOrderResponse>, Status> {
        not_here()
    }

    async fn list_orders(
        &self,
        _: Request<wire::ListOrdersRequest>,
    ) -> Result<Response<wire::ListOrdersResponse>, Status> {
        not_here()
    }
}
