//! Services that are in other processes: links to them, and the listeners for links from them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use troupe_balancer::Balancer;
use troupe_balancer::instances::{Instance, InstanceId};
use troupe_contracts::invoke::Invoke;
use troupe_contracts::report::Report;
use troupe_mesh::contract::Contract;
use troupe_mesh::discovery::{Discovery, Endpoints, discover};
use troupe_mesh::link::{Identity, LinkSetup, Services as LinkServices};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::pool::Pool;
use troupe_mesh::port::{Port, Service as _};
use troupe_node::admin::{Condition, Readiness};
use troupe_php_pool::PhpPools;
use troupe_wire::handshake::{ContractVersion, Key, Keys, Uid};

use super::here::{self, Resolvers};
use super::{Ports, failures};
use crate::config::{Config, mesh_address};
use crate::failure::{Code, CommandError};
use crate::services::{Service, Services};
