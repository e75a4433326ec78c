//! What ECS tells and keeps of a cluster, to and from the API's shapes.

use aws_sdk_ecs::types::{
    ClusterConfiguration, ClusterSetting, ClusterSettingName, ExecuteCommandConfiguration,
    ExecuteCommandLogConfiguration, ExecuteCommandLogging as SdkLogging,
};

use crate::{inventory::ClusterSettings, spec::ExecuteCommandLogging};

pub(super) fn container_insights(settings: &ClusterSettings) -> Option<Vec<ClusterSetting>> {
    let value = settings.container_insights.as_ref()?;
    let setting = ClusterSetting::builder()
        .name(ClusterSettingName::ContainerInsights)
        .value(value);
    Some(vec![setting.build()])
}

pub(super) fn configuration(settings: &ClusterSettings) -> Option<ClusterConfiguration> {
    let wanted = settings.execute_command_logging.as_ref()?;
    // A key alone leaves the logs where the tasks' own go.
    let is_own = wanted.log_group.is_some() || wanted.s3_bucket.is_some();
    let logs = ExecuteCommandLogConfiguration::builder()
        .set_cloud_watch_log_group_name(wanted.log_group.clone())
        .cloud_watch_encryption_enabled(wanted.log_group_encrypted)
        .set_s3_bucket_name(wanted.s3_bucket.clone())
        .set_s3_key_prefix(wanted.s3_prefix.clone())
        .s3_encryption_enabled(wanted.s3_encrypted)
        .build();
    let command = ExecuteCommandConfiguration::builder()
        .set_kms_key_id(wanted.kms_key.clone())
        .logging(if is_own {
            SdkLogging::Override
        } else {
            SdkLogging::Default
        })
        .set_log_configuration(is_own.then_some(logs));
    Some(
        ClusterConfiguration::builder()
            .execute_command_configuration(command.build())
            .build(),
    )
}

fn read_logging(found: ExecuteCommandConfiguration) -> ExecuteCommandLogging {
    let logs = found.log_configuration;
    let of = |read: fn(&ExecuteCommandLogConfiguration) -> &Option<String>| {
        logs.as_ref().and_then(|logs| read(logs).clone())
    };
    ExecuteCommandLogging {
        log_group: of(|logs| &logs.cloud_watch_log_group_name),
        log_group_encrypted: logs
            .as_ref()
            .is_some_and(|l| l.cloud_watch_encryption_enabled),
        s3_bucket: of(|logs| &logs.s3_bucket_name),
        s3_prefix: of(|logs| &logs.s3_key_prefix),
        s3_encrypted: logs.as_ref().is_some_and(|logs| logs.s3_encryption_enabled),
        kms_key: found.kms_key_id,
    }
}

pub(super) fn read(
    settings: Option<Vec<ClusterSetting>>,
    configuration: Option<ClusterConfiguration>,
) -> ClusterSettings {
    let mut settings = settings.unwrap_or_default().into_iter();
    let insights = settings.find(|found| found.name == Some(ClusterSettingName::ContainerInsights));
    ClusterSettings {
        container_insights: insights.and_then(|found| found.value),
        execute_command_logging: configuration
            .and_then(|found| found.execute_command_configuration)
            .map(read_logging),
    }
}
