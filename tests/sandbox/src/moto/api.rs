//! The few calls that the sandbox itself makes to moto, and forwarding.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, header},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::{Mutex, MutexGuard};

use crate::{api_error::ApiError, autoscaling::TemplateSpec};

const EC2: (&str, &str) = ("ec2", "2016-11-15");
const IAM: (&str, &str) = ("iam", "2010-05-08");
const STS: (&str, &str) = ("sts", "2011-06-15");

/// Loading a service for the first time takes moto half a second on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one moto, in one region.
#[derive(Debug, Clone)]
pub(crate) struct MotoApi {
    http: reqwest::Client,
    url: String,
    region: String,
    objects: Arc<Mutex<()>>,
}

/// What moto answered to a forwarded call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// What moto answered to a call of a REST service.
#[derive(Debug)]
pub(crate) struct RestAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A launch template version.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TemplateVersion {
    pub(crate) launch_template_id: String,
    pub(crate) launch_template_name: String,
    pub(crate) version_number: u64,
    pub(crate) launch_template_data: TemplateData,
}

/// What the sandbox reads of a launch template.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TemplateData {
    user_data: Option<String>,
    key_name: Option<String>,
    iam_instance_profile: Option<ProfileSpec>,
    metadata_options: MetadataOptions,
}

impl TemplateData {
    /// Decoded user data.
    pub(crate) fn user_data(&self) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(encoded) = self.user_data.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| {
            let message = "Invalid BASE64 encoding of user data.";
            ApiError::new("InvalidParameterValue", message)
        })?;
        Ok(Some(decoded))
    }

    /// Name of the key pair.
    pub(crate) fn key_name(&self) -> Option<&str> {
        self.key_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Name of the instance profile.
    pub(crate) fn instance_profile(&self) -> Option<&str> {
        let spec = self.iam_instance_profile.as_ref()?;
        let of_arn = || spec.arn.as_deref()?.rsplit('/').next();
        spec.name.as_deref().or_else(of_arn)
    }

    /// Whether instances see their tags in the metadata service.
    pub(crate) fn tags_in_metadata(&self) -> bool {
        self.metadata_options.instance_metadata_tags.as_deref() == Some("enabled")
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ProfileSpec {
    arn: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetadataOptions {
    instance_metadata_tags: Option<String>,
}

/// A subnet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SubnetInfo {
    pub(crate) subnet_id: String,
    pub(crate) vpc_id: String,
    pub(crate) availability_zone: String,
}

/// An instance that moto has run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InstanceInfo {
    pub(crate) instance_id: String,
    pub(crate) image_id: String,
    pub(crate) instance_type: String,
    private_ip_address: String,
    ip_address: String,
    placement: Placement,
    tag_set: Items<TagInfo>,
    group_set: Items<GroupInfo>,
}

impl InstanceInfo {
    pub(crate) fn availability_zone(&self) -> &str {
        &self.placement.availability_zone
    }

    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        let tags = self.tag_set.item.iter();
        tags.map(|t| (t.key.clone(), t.value.clone())).collect()
    }

    /// Made up: no machine has them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let listed = [&self.private_ip_address, &self.ip_address];
        let listed = listed.into_iter().filter(|address| !address.is_empty());
        listed.cloned().collect()
    }

    pub(crate) fn security_groups(&self) -> Vec<String> {
        let groups = self.group_set.item.iter();
        groups.map(|group| group.group_id.clone()).collect()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Placement {
    availability_zone: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TagInfo {
    key: String,
    value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupInfo {
    group_id: String,
}

/// EC2's lists.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Items<T> {
    item: Vec<T>,
}

/// IAM's lists.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Members<T> {
    member: Vec<T>,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { member: Vec::new() }
    }
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

impl MotoApi {
    pub(crate) fn new(url: &str, region: &str) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            region: region.to_owned(),
            objects: Arc::default(),
        })
    }

    /// Passes a call on as it came.
    pub(crate) async fn forward(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, ApiError> {
        self.send(of_the_call(headers), body.to_vec()).await
    }

    /// A turn in S3, where one sees all of what another does, or nothing. moto shows an object before it has
    /// its checksum.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.objects.lock().await
    }

    /// Passes a call of a REST service on as it came.
    pub(crate) async fn rest(
        &self,
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<RestAnswer, ApiError> {
        let url = format!("{}{path_and_query}", self.url);
        let request = self.http.request(method.clone(), url);
        let request = request.headers(of_the_call(headers)).body(body);
        let unreachable = |e| self.unreachable(&e);
        let response = request.send().await.map_err(unreachable)?;
        Ok(RestAnswer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(unreachable)?.to_vec(),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let message = format!("fleet-sandbox cannot reach moto at {}: {error}", self.url);
        ApiError::new("ServiceUnavailable", message).with_status(503)
    }

    /// Loads what moto loads lazily.
    pub(crate) async fn warm_up(&self) -> Result<(), ApiError> {
        self.call(EC2, "DescribeVpcs", &[]).await?;
        self.call(IAM, "ListRoles", &[("MaxItems", "1")]).await?;
        self.call(STS, "GetCallerIdentity", &[]).await?;
        Ok(())
    }

    /// The launch template version that a spec means.
    pub(crate) async fn template(&self, spec: &TemplateSpec) -> Result<TemplateVersion, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Versions {
            launch_template_version_set: Items<TemplateVersion>,
        }
        let version = spec.version.as_deref().unwrap_or("$Default");
        let mut parameters = vec![("LaunchTemplateVersion.1", version)];
        if let Some(id) = spec.launch_template_id.as_deref() {
            parameters.push(("LaunchTemplateId", id));
        } else if let Some(name) = spec.launch_template_name.as_deref() {
            parameters.push(("LaunchTemplateName", name));
        }
        let versions: Versions = self
            .ec2("DescribeLaunchTemplateVersions", &parameters)
            .await?;
        let found = versions.launch_template_version_set.item.into_iter().next();
        found.ok_or_else(|| {
            ApiError::new(
                "InvalidLaunchTemplateId.VersionNotFound",
                format!("The launch template has no version {version}."),
            )
        })
    }

    /// All subnets.
    pub(crate) async fn subnets(&self) -> Result<Vec<SubnetInfo>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Subnets {
            subnet_set: Items<SubnetInfo>,
        }
        let subnets: Subnets = self.ec2("DescribeSubnets", &[]).await?;
        Ok(subnets.subnet_set.item)
    }

    /// Gives the default VPC the way out that it has on AWS (VPC guide, "Default VPCs").
    pub(crate) async fn open_default_vpc(&self) -> Result<(), ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Created {
            internet_gateway: Gateway,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Gateway {
            internet_gateway_id: String,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Tables {
            route_table_set: Items<Table>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Table {
            route_table_id: String,
        }
        let vpc = self.default_vpc().await?;
        let created: Created = self.ec2("CreateInternetGateway", &[]).await?;
        let gateway = created.internet_gateway.internet_gateway_id;
        let attach = [("VpcId", vpc.as_str()), ("InternetGatewayId", &gateway)];
        self.call(EC2, "AttachInternetGateway", &attach).await?;
        let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", &vpc)];
        let tables: Tables = self.ec2("DescribeRouteTables", &of_vpc).await?;
        for table in tables.route_table_set.item {
            let route = [
                ("RouteTableId", table.route_table_id.as_str()),
                ("DestinationCidrBlock", "0.0.0.0/0"),
                ("GatewayId", &gateway),
            ];
            self.call(EC2, "CreateRoute", &route).await?;
        }
        Ok(())
    }

    /// A role that a service has of its own.
    pub(crate) async fn create_service_role(
        &self,
        role: &str,
        service: &str,
    ) -> Result<(), ApiError> {
        let path = format!("/aws-service-role/{service}/");
        let trust = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": service },
                "Action": "sts:AssumeRole",
            }],
        });
        let trust = trust.to_string();
        let parameters = [
            ("RoleName", role),
            ("Path", path.as_str()),
            ("AssumeRolePolicyDocument", trust.as_str()),
        ];
        self.call(IAM, "CreateRole", &parameters).await.map(drop)
    }

    /// Id of the default VPC.
    pub(crate) async fn default_vpc(&self) -> Result<String, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Vpcs {
            vpc_set: Items<Vpc>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Vpc {
            vpc_id: String,
        }
        let filter = [
            ("Filter.1.Name", "is-default"),
            ("Filter.1.Value.1", "true"),
        ];
        let vpcs: Vpcs = self.ec2("DescribeVpcs", &filter).await?;
        let first = vpcs.vpc_set.item.into_iter().next();
        first
            .map(|vpc| vpc.vpc_id)
            .ok_or_else(|| ApiError::new("InvalidVpcID.NotFound", "moto has no default VPC"))
    }

    /// Id of the security group with this name, empty if there is none.
    pub(crate) async fn security_group_id(&self, name: &str) -> Result<String, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Groups {
            security_group_info: Items<GroupInfo>,
        }
        let filter = [("Filter.1.Name", "group-name"), ("Filter.1.Value.1", name)];
        let groups: Groups = self.ec2("DescribeSecurityGroups", &filter).await?;
        let first = groups.security_group_info.item.into_iter().next();
        Ok(first.map(|group| group.group_id).unwrap_or_default())
    }

    /// A key pair's public half, as OpenSSH writes it.
    pub(crate) async fn public_key(&self, key_pair: &str) -> Result<String, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Described {
            key_set: Items<KeyPair>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct KeyPair {
            public_key: String,
        }
        let parameters = [("KeyName.1", key_pair), ("IncludePublicKey", "true")];
        let described: Described = self.ec2("DescribeKeyPairs", &parameters).await?;
        let first = described.key_set.item.into_iter().next();
        Ok(first.map(|found| found.public_key).unwrap_or_default())
    }

    /// Runs one instance from a launch template version.
    pub(crate) async fn run_instance(
        &self,
        template: &TemplateVersion,
        instance_type: Option<&str>,
        subnet_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<InstanceInfo, ApiError> {
        let version = template.version_number.to_string();
        let mut parameters = vec![
            ("MinCount".to_owned(), "1"),
            ("MaxCount".to_owned(), "1"),
            ("SubnetId".to_owned(), subnet_id),
            (
                "LaunchTemplate.LaunchTemplateId".to_owned(),
                template.launch_template_id.as_str(),
            ),
            ("LaunchTemplate.Version".to_owned(), version.as_str()),
        ];
        if let Some(instance_type) = instance_type {
            parameters.push(("InstanceType".to_owned(), instance_type));
        }
        if !tags.is_empty() {
            let resource = "TagSpecification.1.ResourceType";
            parameters.push((resource.to_owned(), "instance"));
        }
        for (index, (key, value)) in tags.iter().enumerate() {
            let prefix = format!("TagSpecification.1.Tag.{}", index + 1);
            parameters.push((format!("{prefix}.Key"), key));
            parameters.push((format!("{prefix}.Value"), value));
        }
        let parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let answer = self.call(EC2, "RunInstances", &parameters).await?;
        let first = instances_run(&answer)?.into_iter().next();
        first.ok_or_else(|| ApiError::new("InternalError", "moto ran no instance").with_status(500))
    }

    /// Marks an instance terminated in EC2.
    pub(crate) async fn terminate_instance(&self, instance_id: &str) -> Result<(), ApiError> {
        let parameters = [("InstanceId.1", instance_id)];
        self.call(EC2, "TerminateInstances", &parameters).await?;
        Ok(())
    }

    /// Puts tags on an instance.
    pub(crate) async fn create_tags(
        &self,
        instance_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        let mut parameters = vec![("ResourceId.1".to_owned(), instance_id)];
        for (index, (key, value)) in tags.iter().enumerate() {
            let prefix = format!("Tag.{}", index + 1);
            parameters.push((format!("{prefix}.Key"), key));
            parameters.push((format!("{prefix}.Value"), value));
        }
        let parameters: Vec<_> = parameters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        self.call(EC2, "CreateTags", &parameters).await?;
        Ok(())
    }

    /// Takes tags off an instance, whatever their values.
    pub(crate) async fn delete_tags(
        &self,
        instance_id: &str,
        keys: &[String],
    ) -> Result<(), ApiError> {
        let mut parameters = vec![("ResourceId.1".to_owned(), instance_id)];
        for (index, key) in keys.iter().enumerate() {
            parameters.push((format!("Tag.{}.Key", index + 1), key));
        }
        let parameters: Vec<_> = parameters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        self.call(EC2, "DeleteTags", &parameters).await?;
        Ok(())
    }

    /// Registers an image and returns its id.
    pub(crate) async fn register_image(&self, name: &str) -> Result<String, ApiError> {
        let parameters = [
            ("Name", name),
            ("RootDeviceName", "/dev/xvda"),
            ("Architecture", "x86_64"),
        ];
        image_made(&self.call(EC2, "RegisterImage", &parameters).await?)
    }

    /// Name of the role in an instance profile, if it has one.
    pub(crate) async fn role_of_profile(&self, profile: &str) -> Result<Option<String>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Response {
            get_instance_profile_result: Found,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Found {
            instance_profile: Profile,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Profile {
            roles: Members<Role>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Role {
            role_name: String,
        }
        let parameters = [("InstanceProfileName", profile)];
        let text = self.call(IAM, "GetInstanceProfile", &parameters).await?;
        let response: Response = parse("GetInstanceProfile", &text)?;
        let roles = response.get_instance_profile_result.instance_profile.roles;
        Ok(roles.member.into_iter().next().map(|role| role.role_name))
    }

    /// A role's inline policies by name, as JSON text; none of a role that is not there.
    pub(crate) async fn inline_policies(
        &self,
        role: &str,
    ) -> Result<BTreeMap<String, String>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Listed {
            list_role_policies_result: Names,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Names {
            policy_names: Members<String>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Got {
            get_role_policy_result: Document,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Document {
            policy_document: String,
        }
        let listed: Listed = self
            .of_role("ListRolePolicies", &[("RoleName", role)])
            .await?;
        let mut policies = BTreeMap::new();
        for name in listed.list_role_policies_result.policy_names.member {
            let parameters = [("RoleName", role), ("PolicyName", name.as_str())];
            let got: Got = self.of_role("GetRolePolicy", &parameters).await?;
            let encoded = got.get_role_policy_result.policy_document;
            let text = percent_decode_str(&encoded)
                .decode_utf8_lossy()
                .into_owned();
            policies.insert(name, text);
        }
        Ok(policies)
    }

    /// A managed policy, as JSON text.
    pub(crate) async fn managed_policy(&self, arn: &str) -> Result<String, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Got {
            get_policy_result: Found,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Found {
            policy: Policy,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Policy {
            default_version_id: String,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct GotVersion {
            get_policy_version_result: FoundVersion,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct FoundVersion {
            policy_version: Version,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Version {
            document: String,
        }
        let text = self.call(IAM, "GetPolicy", &[("PolicyArn", arn)]).await?;
        let got: Got = parse("GetPolicy", &text)?;
        let version = got.get_policy_result.policy.default_version_id;
        let parameters = [("PolicyArn", arn), ("VersionId", version.as_str())];
        let text = self.call(IAM, "GetPolicyVersion", &parameters).await?;
        let got: GotVersion = parse("GetPolicyVersion", &text)?;
        let encoded = got.get_policy_version_result.policy_version.document;
        Ok(percent_decode_str(&encoded)
            .decode_utf8_lossy()
            .into_owned())
    }

    /// ARN of the policy that bounds a role.
    pub(crate) async fn permissions_boundary(
        &self,
        role: &str,
    ) -> Result<Option<String>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Got {
            get_role_result: Found,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Found {
            role: Role,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Role {
            permissions_boundary: Boundary,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Boundary {
            permissions_boundary_arn: Option<String>,
        }
        let got: Got = self.of_role("GetRole", &[("RoleName", role)]).await?;
        Ok(got
            .get_role_result
            .role
            .permissions_boundary
            .permissions_boundary_arn)
    }

    /// ARNs of the managed policies attached to a role.
    pub(crate) async fn attached_policies(&self, role: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Listed {
            list_attached_role_policies_result: Attached,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Attached {
            attached_policies: Members<Policy>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Policy {
            policy_arn: String,
        }
        let listed: Listed = self
            .of_role("ListAttachedRolePolicies", &[("RoleName", role)])
            .await?;
        let policies = listed.list_attached_role_policies_result.attached_policies;
        Ok(policies.member.into_iter().map(|p| p.policy_arn).collect())
    }

    /// Tags of EC2's resources, by id.
    pub(crate) async fn tags(
        &self,
        ids: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, ApiError> {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Described {
            tag_set: Items<ResourceTag>,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct ResourceTag {
            resource_id: String,
            key: String,
            value: String,
        }
        let mut parameters = vec![("Filter.1.Name".to_owned(), "resource-id")];
        for (index, id) in ids.iter().enumerate() {
            parameters.push((format!("Filter.1.Value.{}", index + 1), id));
        }
        let parameters: Vec<_> = parameters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let described: Described = self.ec2("DescribeTags", &parameters).await?;
        let mut tags: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for tag in described.tag_set.item {
            let of_resource = tags.entry(tag.resource_id).or_default();
            of_resource.insert(tag.key, tag.value);
        }
        Ok(tags)
    }

    /// Asks IAM about a role; nothing is known of one that is not there.
    async fn of_role<T: DeserializeOwned + Default>(
        &self,
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ApiError> {
        match self.call(IAM, operation, parameters).await {
            Err(error) if error.code == "NoSuchEntity" => Ok(T::default()),
            other => parse(operation, &other?),
        }
    }

    async fn ec2<T: DeserializeOwned>(
        &self,
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, ApiError> {
        parse(operation, &self.call(EC2, operation, parameters).await?)
    }

    async fn call(
        &self,
        (service, version): (&str, &str),
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, ApiError> {
        // In one go: the serializer must not live across an await.
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", operation)
            .append_pair("Version", version)
            .extend_pairs(parameters)
            .finish();
        let mut headers = HeaderMap::new();
        // moto checks no signature: the scope tells it service and region.
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIASANDBOX/20260101/{}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0",
            self.region
        );
        let content_type = "application/x-www-form-urlencoded";
        for (name, value) in [
            (header::AUTHORIZATION, scope.as_str()),
            (header::CONTENT_TYPE, content_type),
        ] {
            let value = value
                .parse()
                .map_err(|_| failed(operation, "the region is not fit for a header"))?;
            headers.insert(name, value);
        }
        let answer = self.send(headers, form.into_bytes()).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 {
            return Ok(text);
        }
        Err(read_error(&text)
            .unwrap_or_else(|| failed(operation, &format!("moto answered HTTP {}", answer.status))))
    }

    async fn send(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, ApiError> {
        let unreachable = |e| self.unreachable(&e);
        let request = self.http.post(&self.url).headers(headers).body(body);
        let response = request.send().await.map_err(unreachable)?;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|v| v.to_str().ok())
            .unwrap_or("text/xml");
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: content_type.to_owned(),
            body: response.bytes().await.map_err(unreachable)?.to_vec(),
        })
    }
}

/// The instances in an answer to RunInstances.
pub(crate) fn instances_run(answer: &str) -> Result<Vec<InstanceInfo>, ApiError> {
    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Reservation {
        instances_set: Items<InstanceInfo>,
    }
    let reservation: Reservation = parse("RunInstances", answer)?;
    Ok(reservation.instances_set.item)
}

/// The image in an answer to CreateImage or CopyImage.
pub(crate) fn image_made(answer: &str) -> Result<String, ApiError> {
    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Made {
        image_id: String,
    }
    let made: Made = parse("CreateImage", answer)?;
    Ok(made.image_id)
}

/// Without those of one hop: the client sets its own.
fn of_the_call(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ] {
        headers.remove(name);
    }
    headers
}

fn failed(operation: &str, why: &str) -> ApiError {
    ApiError::new("InternalError", format!("{operation}: {why}")).with_status(500)
}

fn parse<T: DeserializeOwned>(operation: &str, text: &str) -> Result<T, ApiError> {
    quick_xml::de::from_str(text).map_err(|e| failed(operation, &e.to_string()))
}

/// EC2's and IAM's error documents.
fn read_error(text: &str) -> Option<ApiError> {
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        errors: Option<Errors>,
        error: Option<Error>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Errors {
        error: Error,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Error {
        code: String,
        message: String,
    }
    let document: Document = quick_xml::de::from_str(text).ok()?;
    let error = document.error.or_else(|| Some(document.errors?.error))?;
    Some(ApiError::new(error.code, error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_kinds_of_errors() {
        let ec2 = "<?xml version=\"1.0\"?><Response xmlns=\"http://x/\"><Errors><Error><Code>A</Code>\
                   <Message>a &lt; b</Message></Error></Errors><RequestID>r</RequestID></Response>";
        assert_eq!(read_error(ec2), Some(ApiError::new("A", "a < b")));
        let iam = "<ErrorResponse><Error><Type>Sender</Type><Code>B</Code><Message>b</Message>\
                   <message>b</message></Error></ErrorResponse>";
        assert_eq!(read_error(iam), Some(ApiError::new("B", "b")));
        assert_eq!(read_error("<html/>"), None);
    }

    #[test]
    fn reads_a_reservation_and_a_template() {
        let text = "<R><instancesSet><item><instanceId>i-1</instanceId><imageId>ami-1</imageId>\
                    <instanceType>t3.micro</instanceType><groupSet><item><groupId>sg-1</groupId></item>\
                    </groupSet><tagSet><item><key>a</key><value/></item></tagSet><placement>\
                    <availabilityZone>eu-west-1a</availabilityZone></placement></item></instancesSet></R>";
        let instance = &instances_run(text).unwrap()[0];
        assert_eq!(instance.availability_zone(), "eu-west-1a");
        assert_eq!(instance.security_groups(), ["sg-1"]);
        assert_eq!(instance.tags()["a"], "");

        let text = "<T><userData>I2Nsb3VkLWNvbmZpZwo=</userData><iamInstanceProfile><arn>\
                    arn:aws:iam::1:instance-profile/p</arn></iamInstanceProfile><metadataOptions>\
                    <instanceMetadataTags>enabled</instanceMetadataTags></metadataOptions></T>";
        let data: TemplateData = parse("x", text).unwrap();
        assert_eq!(data.user_data().unwrap().unwrap(), b"#cloud-config\n");
        assert_eq!(data.instance_profile(), Some("p"));
        assert!(data.tags_in_metadata());
    }
}
