//! What the node says of itself in Systems Manager's inventory, as `Custom:FleetNode`: there in detail,
//! where attributes have room for a word, and there still when the node is gone. It informs; nothing is
//! decided by it.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use tokio::sync::watch;

use crate::{
    clients::{Clients, ssm::Ssm},
    journal::{event::Entry, sink},
    lifecycle::{
        driver::Context,
        schedule::{backoff, is_news, jitter},
    },
};

/// News comes in crowds: one record after half of this to the whole says it all, and a fault that many
/// nodes share does not have them all call at the same time.
const CROWD: Duration = Duration::from_secs(60);
/// Told again, in case somebody has removed it.
const REFRESH: Duration = Duration::from_secs(24 * 3_600);
/// An instance whose SSM agent is not there is refused for good.
const FIRST_RETRY: Duration = Duration::from_secs(120);
const LAST_RETRY: Duration = Duration::from_secs(3_600);
/// A value holds at most 4,096 characters (PutInventory, "InventoryItem").
const VALUE_MAX: usize = 4_096;

/// The one entry of the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) instance: String,
    /// By attributes' names.
    pub(crate) content: BTreeMap<&'static str, String>,
}

impl Record {
    /// With every value cut to what may stand there.
    pub(crate) fn new(instance: &str, content: Vec<(&'static str, String)>) -> Self {
        let content = content
            .into_iter()
            .map(|(name, value)| (name, value.chars().take(VALUE_MAX).collect()));
        Self {
            instance: instance.to_owned(),
            content: content.collect(),
        }
    }
}

/// Tells each record that differs from the one before, until nobody makes records any more.
pub(crate) async fn keep<C: Clients>(
    context: Rc<Context<C>>,
    mut records: watch::Receiver<Option<Record>>,
) {
    let clock = &context.clock;
    let mut told = None;
    let mut failures = 0;
    let mut error = None;
    loop {
        let is_news_to_tell = |record: &Option<Record>| record.is_some() && *record != told;
        tokio::select! {
            changed = records.wait_for(is_news_to_tell) => if changed.is_err() { return },
            () = clock.sleep(jitter(REFRESH, context.seed)) => {}
        }
        clock.sleep(jitter(CROWD, context.seed)).await;
        let Some(record) = records.borrow_and_update().clone() else {
            continue;
        };
        const CALL: &str = "tell the inventory of Systems Manager";
        match context
            .clients
            .ssm()
            .put_inventory(&record, clock.wall())
            .await
        {
            Ok(()) => {
                if error.take().is_some() {
                    sink::write(&Entry::Recovered { call: CALL });
                }
                failures = 0;
                told = Some(record);
            }
            Err(met) => {
                failures += 1;
                let text = format!("{met:#}");
                if is_news(error.as_deref(), &text, failures) {
                    sink::write(&Entry::CallFailed {
                        call: CALL,
                        error: text.clone(),
                    });
                }
                error = Some(text);
                let wait = backoff(FIRST_RETRY, LAST_RETRY, failures - 1, context.seed);
                clock.sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        task::{LocalSet, spawn_local},
        time::sleep,
    };

    use super::*;
    use crate::testing::{Fault, Node, context, golden_settings};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn record(health: &str) -> Option<Record> {
        Some(Record::new("i-1", vec![("Health", health.to_owned())]))
    }

    async fn with(test: impl AsyncFnOnce(&Node, watch::Sender<Option<Record>>)) {
        let node = Node::launching();
        let context = context(&node, golden_settings());
        let (sender, receiver) = watch::channel(None);
        LocalSet::new()
            .run_until(async {
                spawn_local(keep(context, receiver));
                test(&node, sender).await;
            })
            .await;
    }

    fn told(node: &Node) -> Vec<String> {
        let world = node.world();
        let told = world.inventory.iter();
        told.map(|record| record.content["Health"].clone())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_told_once_and_what_came_together_is_told_together() {
        with(async |node, records| {
            sleep(HOUR).await;
            assert_eq!(node.count("put-inventory"), 0, "nothing is known yet");
            records.send_replace(record("ok"));
            sleep(CROWD).await;
            sleep(HOUR).await;
            records.send_replace(record("degraded"));
            sleep(CROWD / 4).await;
            records.send_replace(record("impaired"));
            sleep(CROWD).await;
            records.send_replace(record("impaired"));
            sleep(HOUR).await;
            assert_eq!(told(node), ["ok", "impaired"]);
            sleep(REFRESH).await;
            assert_eq!(told(node), ["ok", "impaired", "impaired"]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_is_refused_asks_later_and_later() {
        with(async |node, records| {
            node.fault("put-inventory", Fault::Fails);
            records.send_replace(record("ok"));
            sleep(10 * HOUR).await;
            let calls = node.count("put-inventory");
            assert!((10..=24).contains(&calls), "{calls} calls in ten hours");
            node.heal("put-inventory");
            sleep(2 * HOUR).await;
            assert_eq!(told(node), ["ok"]);
        })
        .await;
    }

    #[test]
    fn a_value_is_cut_to_what_may_stand_there() {
        let record = Record::new("i-1", vec![("Detail", "é".repeat(5_000))]);
        assert_eq!(record.content["Detail"].chars().count(), VALUE_MAX);
    }
}
