//! The wirings that the suite runs over.

use std::rc::Rc;
use std::time::Duration;

use troupe_mesh::contract::Contract;
use troupe_mesh::discovery::{Address, Discovery, Endpoint, StaticDiscovery};
use troupe_mesh::link::{Identity, LinkSetup, Services};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::loopback;
use troupe_mesh::pool::Pool;
use troupe_mesh::port::{Port, Service};
use troupe_wire::handshake::{ContractVersion, Key, Keys};

use crate::contract::{Ask, Teller};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Wiring {
    Inline,
    Mailbox,
    Loopback,
    Tcp,
    Unix,
}

/// A service behind one wiring.
pub(crate) struct Wired {
    pub(crate) wiring: Wiring,
    pub(crate) port: Port<Ask>,
    pub(crate) teller: Rc<Teller>,
    /// What has to live as long as the port is used.
    _listener: Option<MeshListener>,
    _folder: Option<tempfile::TempDir>,
    _discovery: Option<StaticDiscovery>,
}

impl Wiring {
    pub(crate) fn wire(self) -> Wired {
        let teller = Rc::new(Teller::default());
        let service: Rc<dyn Service<Ask>> = Rc::clone(&teller) as Rc<dyn Service<Ask>>;
        let here = |port| Wired {
            wiring: self,
            port,
            teller: Rc::clone(&teller),
            _listener: None,
            _folder: None,
            _discovery: None,
        };
        match self {
            Self::Inline => here(Port::inline(service)),
            Self::Mailbox => here(Port::mailbox(service, 10_000)),
            Self::Loopback => here(loopback::port(service).unwrap()),
            Self::Tcp => {
                let (port, listener, discovery) = over(&"127.0.0.1:0".parse_any(), service);
                Wired { _listener: Some(listener), _discovery: Some(discovery), ..here(port) }
            }
            Self::Unix => {
                let folder = tempfile::tempdir().unwrap();
                let (port, listener, discovery) = over(&Address::Unix(folder.path().join("mesh.sock")), service);
                Wired { _listener: Some(listener), _folder: Some(folder), _discovery: Some(discovery), ..here(port) }
            }
        }
    }
}

fn over(address: &Address, service: Rc<dyn Service<Ask>>) -> (Port<Ask>, MeshListener, StaticDiscovery) {
    let listener = MeshListener::bind(address).unwrap();
    listener.acceptor().serve(callee(Services::new().with(Port::inline(service)), keys(1)));
    let discovery = StaticDiscovery::new([Endpoint::from(listener.address().clone())]);
    let pool = Pool::start(caller(keys(1)), "callee", Duration::from_secs(20), discovery.watch());
    (pool.port(), listener, discovery)
}

/// Any free port of this host; `Address` itself refuses to parse port 0.
pub(crate) trait ParseAny {
    fn parse_any(&self) -> Address;
}

impl ParseAny for str {
    fn parse_any(&self) -> Address {
        Address::Tcp(self.parse().unwrap())
    }
}

pub(crate) fn keys(byte: u8) -> Keys {
    Keys::new(Key::new(&[byte; 32]).unwrap(), None)
}

pub(crate) fn calls() -> [ContractVersion; 1] {
    [ContractVersion { id: Ask::ID, version: Ask::VERSION }]
}

pub(crate) fn caller(keys: Keys) -> LinkSetup {
    LinkSetup::caller(Identity::new("caller", "a", 1).unwrap(), keys, calls())
}

pub(crate) fn callee(services: Services, keys: Keys) -> LinkSetup {
    LinkSetup::callee(Identity::new("callee", "b", 1).unwrap(), keys, services)
}

/// Runs each test of the suite in each wiring.
macro_rules! in_wirings {
    ([$($module:ident: $wiring:ident),*] $tests:tt) => {
        $(in_wirings!(@one $module $wiring $tests);)*
    };
    (@one $module:ident $wiring:ident [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[actix_rt::test]
                async fn $test() {
                    super::$test(crate::wiring::Wiring::$wiring.wire()).await;
                }
            )*
        }
    };
}
pub(crate) use in_wirings;
