//! CloudWatch's metric alarms as a pure model. They are kept and described; nothing measures, so that an alarm
//! stands when it is told to ([`Model::breach`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api_error::ApiError;

/// Alarms of one account and region.
#[derive(Debug, Clone)]
pub struct Model {
    region: String,
    account_id: String,
    alarms: BTreeMap<String, Alarm>,
}

#[derive(Debug, Clone)]
struct Alarm {
    tags: BTreeMap<String, String>,
    settings: PutMetricAlarm,
}

/// PutMetricAlarm, on metric math alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct PutMetricAlarm {
    alarm_name: String,
    actions_enabled: Option<bool>,
    alarm_actions: Vec<String>,
    evaluation_periods: u32,
    datapoints_to_alarm: Option<u32>,
    threshold: f64,
    comparison_operator: String,
    treat_missing_data: Option<String>,
    metrics: Vec<Value>,
    #[serde(skip_serializing)]
    tags: Vec<Tag>,
}

/// A tag.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

/// DescribeAlarms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeAlarms {
    alarm_names: Vec<String>,
    alarm_name_prefix: Option<String>,
    alarm_types: Vec<String>,
}

/// DeleteAlarms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeleteAlarms {
    alarm_names: Vec<String>,
}

/// TagResource, and ListTagsForResource, which has no tags.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TagResource {
    #[serde(rename = "ResourceARN")]
    resource_arn: String,
    #[serde(rename = "Tags")]
    tags: Vec<Tag>,
}

/// What an alarm sets off, and how far beyond its threshold the metric is.
#[derive(Debug, Clone, PartialEq)]
pub struct Breach {
    /// ARNs of scaling policies.
    pub actions: Vec<String>,
    /// The metric less the threshold.
    pub distance: f64,
}

impl Model {
    /// An account without alarms.
    pub fn new(region: &str, account_id: &str) -> Self {
        Self {
            region: region.to_owned(),
            account_id: account_id.to_owned(),
            alarms: BTreeMap::new(),
        }
    }

    /// PutMetricAlarm. Tags are only taken for an alarm that is made.
    ///
    /// # Errors
    /// `ValidationError`.
    pub fn put_metric_alarm(&mut self, request: PutMetricAlarm) -> Result<Value, ApiError> {
        if request.alarm_name.is_empty() || request.evaluation_periods == 0 {
            return Err(invalid("AlarmName and EvaluationPeriods are required."));
        }
        let looked_at = request
            .metrics
            .iter()
            .filter(|query| query["ReturnData"] != false);
        if looked_at.count() != 1 {
            return Err(invalid(
                "Exactly one element of the metrics list should return data.",
            ));
        }
        let name = request.alarm_name.clone();
        let tags = match self.alarms.get(&name) {
            Some(alarm) => alarm.tags.clone(),
            None => plain(&request.tags),
        };
        let alarm = Alarm {
            tags,
            settings: request,
        };
        self.alarms.insert(name, alarm);
        Ok(json!({}))
    }

    /// DescribeAlarms. Unknown names are left out.
    pub fn describe_alarms(&self, request: &DescribeAlarms) -> Value {
        let DescribeAlarms {
            alarm_names: names,
            alarm_name_prefix: prefix,
            ..
        } = request;
        let is_asked_for = |name: &&String| {
            let begins = prefix
                .as_ref()
                .is_none_or(|prefix| name.starts_with(prefix));
            begins && (names.is_empty() || names.contains(name))
        };
        let found = self.alarms.keys().filter(is_asked_for);
        let alarms = found.map(|name| {
            let mut alarm = json!(self.alarms[name].settings);
            alarm["AlarmArn"] = self.arn(name).into();
            alarm["StateValue"] = "INSUFFICIENT_DATA".into();
            alarm
        });
        json!({ "MetricAlarms": alarms.collect::<Value>(), "CompositeAlarms": [] })
    }

    /// DeleteAlarms: all or none.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn delete_alarms(&mut self, request: &DeleteAlarms) -> Result<Value, ApiError> {
        let names = &request.alarm_names;
        if let Some(unknown) = names.iter().find(|name| !self.alarms.contains_key(*name)) {
            return Err(not_found("ResourceNotFound", unknown));
        }
        self.alarms.retain(|name, _| !names.contains(name));
        Ok(json!({}))
    }

    /// TagResource.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn tag_resource(&mut self, request: &TagResource) -> Result<Value, ApiError> {
        let name = name(&request.resource_arn).to_owned();
        let alarm = self.alarms.get_mut(&name);
        let alarm = alarm.ok_or_else(|| not_found("ResourceNotFoundException", &name))?;
        alarm.tags.extend(plain(&request.tags));
        Ok(json!({}))
    }

    /// ListTagsForResource.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn list_tags(&self, request: &TagResource) -> Result<Value, ApiError> {
        let name = name(&request.resource_arn);
        let alarm = self.alarms.get(name);
        let alarm = alarm.ok_or_else(|| not_found("ResourceNotFoundException", name))?;
        let tags = alarm.tags.iter();
        let tags = tags.map(|(key, value)| json!({ "Key": key, "Value": value }));
        Ok(json!({ "Tags": tags.collect::<Value>() }))
    }

    /// Tags of an alarm by its ARN; none of one that is not there.
    pub fn tags_of(&self, arn: &str) -> BTreeMap<String, String> {
        let alarm = self.alarms.get(name(arn));
        alarm.map(|alarm| alarm.tags.clone()).unwrap_or_default()
    }

    /// What an alarm does when its metric has been at `value` for as long as it asks.
    ///
    /// # Errors
    /// In words, if there is no such alarm or it does not stand at that.
    pub fn breach(&self, alarm: &str, value: f64) -> Result<Breach, ApiError> {
        let found = self.alarms.get(alarm);
        let settings = &found
            .ok_or_else(|| not_found("ResourceNotFound", alarm))?
            .settings;
        let distance = value - settings.threshold;
        let is_beyond = match settings.comparison_operator.as_str() {
            "GreaterThanThreshold" => distance > 0.0,
            "GreaterThanOrEqualToThreshold" => distance >= 0.0,
            "LessThanThreshold" => distance < 0.0,
            "LessThanOrEqualToThreshold" => distance <= 0.0,
            other => return Err(invalid(format!("fleet-sandbox does not know {other}."))),
        };
        if !is_beyond {
            return Err(invalid(format!("Alarm {alarm} is OK at {value}.")));
        }
        Ok(Breach {
            actions: match settings.actions_enabled {
                Some(false) => Vec::new(),
                Some(true) | None => settings.alarm_actions.clone(),
            },
            distance,
        })
    }

    fn arn(&self, name: &str) -> String {
        let (region, account) = (&self.region, &self.account_id);
        format!("arn:aws:cloudwatch:{region}:{account}:alarm:{name}")
    }
}

fn name(arn: &str) -> &str {
    arn.splitn(7, ':').last().unwrap_or_default()
}

fn plain(tags: &[Tag]) -> BTreeMap<String, String> {
    let tags = tags.iter();
    tags.map(|tag| (tag.key.clone(), tag.value.clone()))
        .collect()
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("ValidationError", message)
}

fn not_found(code: &str, name: &str) -> ApiError {
    ApiError::new(code, format!("There is no alarm {name}.")).with_status(404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(model: &mut Model, tag: &str) {
        let request = json!({
            "AlarmName": "busy",
            "AlarmActions": ["arn:policy"],
            "EvaluationPeriods": 2,
            "Threshold": 75,
            "ComparisonOperator": "GreaterThanThreshold",
            "Metrics": [{ "Id": "m", "Expression": "MAX([a, b])" }],
            "Tags": [{ "Key": "k", "Value": tag }],
        });
        let request = serde_json::from_value(request).expect("a request");
        model.put_metric_alarm(request).expect("taken");
    }

    #[test]
    fn an_alarm_keeps_the_tags_that_it_was_made_with() {
        let mut model = Model::new("r", "1");
        put(&mut model, "first");
        put(&mut model, "second");
        let tags = model.tags_of("arn:aws:cloudwatch:r:1:alarm:busy");
        assert_eq!(tags["k"], "first");
        let found = model.describe_alarms(&DescribeAlarms::default());
        assert_eq!(found["MetricAlarms"][0]["Threshold"], 75.0);
        let gone = DeleteAlarms {
            alarm_names: vec!["busy".into()],
        };
        model.delete_alarms(&gone).expect("there");
        assert_eq!(
            model.delete_alarms(&gone).expect_err("gone").code,
            "ResourceNotFound"
        );
    }

    #[test]
    fn it_stands_beyond_its_threshold_alone() {
        let mut model = Model::new("r", "1");
        put(&mut model, "t");
        let breach = model.breach("busy", 80.0).expect("stands");
        assert_eq!((breach.distance, breach.actions.len()), (5.0, 1));
        assert!(model.breach("busy", 75.0).is_err());
        assert!(model.breach("idle", 80.0).is_err());
    }
}
