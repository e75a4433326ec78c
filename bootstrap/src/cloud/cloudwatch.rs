//! CloudWatch alarms on what a cluster's tasks reserve.

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::{
    Client,
    config::Builder,
    types::{AlarmType, Dimension, Metric, MetricAlarm, MetricDataQuery, MetricStat, Tag},
};

use super::{
    error::{CallError, failed, found, gone},
    signed, unsigned,
};
use crate::inventory::{Alarm, AlarmSettings, Tags};

/// Names a DescribeAlarms call takes.
const BATCH: usize = 100;
/// ECS's (ECS guide, "Amazon ECS CloudWatch metrics").
const NAMESPACE: &str = "AWS/ECS";
const CLUSTER: &str = "ClusterName";
/// With the ids that they have in the expression.
const METRICS: [(&str, &str); 2] = [("cpu", "CPUReservation"), ("memory", "MemoryReservation")];
/// Point by point (CloudWatch guide, "Metric math syntax and functions").
const GREATER: &str = "MAX([cpu, memory])";
const GREATER_ID: &str = "reserved";
/// ECS sends them each minute.
const PERIOD_SECONDS: i32 = 60;
const STATISTIC: &str = "Average";

#[derive(Debug)]
pub(crate) struct CloudWatch {
    client: Client,
}

impl CloudWatch {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// Those alarms that exist, by name.
    pub(crate) async fn alarms(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, Alarm>, CallError> {
        let mut alarms = BTreeMap::new();
        for batch in names.chunks(BATCH) {
            let request = self.client.describe_alarms();
            let mut pages = request
                .set_alarm_names(Some(batch.to_vec()))
                .alarm_types(AlarmType::MetricAlarm)
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(failed("cloudwatch:DescribeAlarms", &batch.join(" ")))?;
                for alarm in page.metric_alarms.unwrap_or_default() {
                    let name = alarm.alarm_name.clone().unwrap_or_default();
                    let mut alarm = read(alarm);
                    alarm.tags = self.tags(&alarm.arn).await?;
                    alarms.insert(name, alarm);
                }
            }
        }
        Ok(alarms)
    }

    /// None of one that has gone meanwhile, which makes it nobody's.
    async fn tags(&self, arn: &str) -> Result<Tags, CallError> {
        let reply = self.client.list_tags_for_resource().resource_arn(arn);
        let reply = reply.send().await;
        let reply = found(reply.map_err(failed("cloudwatch:ListTagsForResource", arn)))?;
        let tags = reply.and_then(|reply| reply.tags).unwrap_or_default();
        Ok(tags
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect())
    }

    /// Makes an alarm or replaces it. Of one that is there tags are ignored, hence none of them then.
    pub(crate) async fn put(
        &self,
        name: &str,
        settings: &AlarmSettings,
        action: &str,
        tags: Option<&Tags>,
    ) -> Result<(), CallError> {
        let cluster = settings.cluster.as_deref().unwrap_or_default();
        self.client
            .put_metric_alarm()
            .alarm_name(name)
            .set_metrics(Some(queries(cluster)))
            .comparison_operator(settings.comparison.as_str().into())
            .threshold(settings.threshold)
            .evaluation_periods(signed(settings.minutes))
            .datapoints_to_alarm(signed(settings.minutes_beyond))
            .treat_missing_data(&settings.missing_data)
            .actions_enabled(settings.is_enabled)
            .alarm_actions(action)
            .set_tags(tags.map(sdk_tags))
            .send()
            .await
            .map(drop)
            .map_err(failed("cloudwatch:PutMetricAlarm", name))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), CallError> {
        let reply = self.client.delete_alarms().alarm_names(name).send().await;
        gone(reply.map_err(failed("cloudwatch:DeleteAlarms", name)))
    }

    pub(crate) async fn tag(&self, arn: &str, tags: &Tags) -> Result<(), CallError> {
        self.client
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("cloudwatch:TagResource", arn))
    }
}

fn read(alarm: MetricAlarm) -> Alarm {
    let minutes = unsigned(alarm.evaluation_periods).unwrap_or_default();
    Alarm {
        arn: alarm.alarm_arn.unwrap_or_default(),
        tags: Tags::new(),
        settings: AlarmSettings {
            cluster: cluster(&alarm.metrics.unwrap_or_default()),
            comparison: alarm
                .comparison_operator
                .map_or_else(String::new, |found| found.as_str().to_owned()),
            threshold: alarm.threshold.unwrap_or_default(),
            minutes,
            minutes_beyond: unsigned(alarm.datapoints_to_alarm).unwrap_or(minutes),
            missing_data: alarm
                .treat_missing_data
                .unwrap_or_else(|| "missing".to_owned()),
            is_enabled: alarm.actions_enabled.unwrap_or(true),
        },
        actions: alarm.alarm_actions.unwrap_or_default(),
    }
}

/// The cluster of which these say what we have alarms look at; `None` if they say anything else.
fn cluster(found: &[MetricDataQuery]) -> Option<String> {
    let mut metrics = found.iter().filter_map(|query| {
        let metric = query.metric_stat.as_ref()?.metric.as_ref()?;
        metric.dimensions().first()?.value()
    });
    let cluster = metrics.next()?;
    (said(found) == said(&queries(cluster))).then(|| cluster.to_owned())
}

/// What makes a query, whatever else AWS fills in: its source by its id, and whether that is looked at.
fn said(queries: &[MetricDataQuery]) -> BTreeMap<String, (String, bool)> {
    let source = |query: &MetricDataQuery| {
        let Some(stat) = &query.metric_stat else {
            return query.expression().unwrap_or_default().to_owned();
        };
        let (namespace, name, dimensions) =
            stat.metric.as_ref().map_or_else(Default::default, |of| {
                let dimensions = of.dimensions().iter();
                let dimensions = dimensions.map(|of| (of.name(), of.value())).collect();
                (of.namespace(), of.metric_name(), dimensions)
            });
        let dimensions: Vec<(Option<&str>, Option<&str>)> = dimensions;
        let (period, stat) = (stat.period, stat.stat());
        format!("{namespace:?} {name:?} {dimensions:?} {period:?} {stat:?}")
    };
    let one = |query: &MetricDataQuery| {
        let id = query.id().unwrap_or_default().to_owned();
        // AWS's own: of an alarm's queries one is looked at.
        let is_looked_at = query.return_data.unwrap_or(true);
        (id, (source(query), is_looked_at))
    };
    queries.iter().map(one).collect()
}

fn queries(cluster: &str) -> Vec<MetricDataQuery> {
    let metric = |(id, name): (&str, &str)| {
        let dimension = Dimension::builder().name(CLUSTER).value(cluster).build();
        let metric = Metric::builder()
            .namespace(NAMESPACE)
            .metric_name(name)
            .dimensions(dimension)
            .build();
        let stat = MetricStat::builder()
            .metric(metric)
            .period(PERIOD_SECONDS)
            .stat(STATISTIC)
            .build();
        MetricDataQuery::builder()
            .id(id)
            .metric_stat(stat)
            .return_data(false)
            .build()
    };
    let greater = MetricDataQuery::builder()
        .id(GREATER_ID)
        .expression(GREATER)
        .return_data(true)
        .build();
    METRICS.into_iter().map(metric).chain([greater]).collect()
}

fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    let tags = tags.iter();
    tags.map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_says_whose_reservation_it_watches_or_that_it_watches_something_else() {
        let ours = queries("shop-dev");
        assert_eq!(cluster(&ours).as_deref(), Some("shop-dev"));
        let mut other_order = ours.clone();
        other_order.reverse();
        assert_eq!(cluster(&other_order).as_deref(), Some("shop-dev"));
        let mut cpu_alone = ours.clone();
        let expression = cpu_alone.last_mut().expect("three");
        expression.expression = Some("cpu".to_owned());
        assert_eq!(cluster(&cpu_alone), None);
        let mut two_clusters = ours.clone();
        two_clusters[1] = queries("shop-prod").remove(1);
        assert_eq!(cluster(&two_clusters), None);
        assert_eq!(cluster(&[]), None);
    }
}
