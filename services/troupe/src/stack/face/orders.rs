//! Orders to php-pool instances: to the one of this process by a function call, to others over the balancer's links.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use troupe_balancer::instances::InstanceId;
use troupe_contracts::operate::{Action, Operate, Operated};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::Failure;
use troupe_mesh::port::Port;
use troupe_node::admin::Refusal;
use troupe_php_pool::{PhpPools, Renewal};

/// How long an order may take: booting code, and replacing the most processes there may be.
const LONGEST_ORDER: Duration = Duration::from_secs(140);

/// An order on its way to the thread that has the links.
pub(in crate::stack) struct Order {
    instance: InstanceId,
    operate: Operate,
    reply: oneshot::Sender<Result<Operated, Failure>>,
}

/// Where orders go.
#[derive(Clone)]
pub(in crate::stack) enum Orders {
    Here(Weak<PhpPools>),
    There(mpsc::Sender<Order>),
}

/// Carries out orders by `ports`, until nobody can give one any more.
pub(in crate::stack) async fn carry_out(
    mut orders: mpsc::Receiver<Order>,
    ports: impl Fn(&InstanceId) -> Port<Operate>,
) {
    while let Some(Order { instance, operate, reply }) = orders.recv().await {
        let port = ports(&instance);
        actix_rt::spawn(async move {
            // Who gave it may be gone.
            let _ = reply.send(port.call(Envelope::new(operate, Deadline::after(LONGEST_ORDER))).await);
        });
    }
}

impl Orders {
    /// Has an instance do something with a pool. `Err` inside: it could not, and why.
    pub(super) async fn give(
        &self,
        instance: InstanceId,
        pool: String,
        action: Action,
    ) -> Result<Result<Operated, String>, Refusal> {
        match self {
            Self::Here(php) => {
                let renewed = php.upgrade().ok_or_else(super::stopping)?.renew(&pool, renewal(action));
                Ok(match renewed.await {
                    Ok(renewed) => Ok(Operated {
                        done: true,
                        reason: String::new(),
                        replaced: renewed.replaced,
                        functions: u32::try_from(renewed.functions).unwrap_or(u32::MAX),
                    }),
                    Err(error) => Err(error.to_string()),
                })
            }
            Self::There(orders) => {
                let (reply, answer) = oneshot::channel();
                let order = Order { instance, operate: Operate { pool, action }, reply };
                orders.send(order).await.map_err(|_| super::stopping())?;
                Ok(match answer.await.map_err(|_| super::stopping())? {
                    Ok(operated) if operated.done => Ok(operated),
                    Ok(operated) => Err(operated.reason),
                    Err(failure) => Err(failure.to_string()),
                })
            }
        }
    }
}

pub(super) fn renewal(action: Action) -> Renewal {
    match action {
        Action::Restart => Renewal::Processes,
        Action::Reload => Renewal::Code,
    }
}
