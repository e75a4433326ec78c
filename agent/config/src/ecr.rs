//! Images in private registries of Amazon ECR, by their names.

/// Of every partition (botocore, "partitions.json").
const DOMAINS: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// Where an image stands: `ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG` ("Amazon ECR private
/// registries"). Names of other registries, and those for IPv6, are Docker's alone to understand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EcrImage {
    /// Of the registry, 12 digits.
    pub account: String,
    /// Of the registry.
    pub region: String,
    /// The registry as Docker names it.
    pub host: String,
    /// Where tokens for it are asked for.
    pub endpoint: String,
    /// Without tag and digest.
    pub repository: String,
}

impl EcrImage {
    /// `None` of an image that stands anywhere else.
    pub fn parse(image: &str) -> Option<Self> {
        let (host, path) = image.split_once('/')?;
        let (account, rest) = host.split_once(".dkr.")?;
        let (service, rest) = rest.split_once('.')?;
        let (region, domain) = rest.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let endpoint = match service {
            "ecr" => format!("https://api.ecr.{region}.{domain}"),
            "ecr-fips" => format!("https://ecr-fips.{region}.{domain}"),
            _ => return None,
        };
        if !is_account || !DOMAINS.contains(&domain) {
            return None;
        }
        let path = path.split('@').next().unwrap_or(path);
        // A colon of a port stands before the last slash only.
        let (before, last) = path.rsplit_once('/').unwrap_or(("", path));
        let last = last.split(':').next().unwrap_or(last);
        let repository = match before {
            "" => last.to_owned(),
            before => format!("{before}/{last}"),
        };
        Some(Self {
            account: account.to_owned(),
            region: region.to_owned(),
            host: host.to_owned(),
            endpoint,
            repository,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_images_are_known_by_their_names() {
        let parsed = |image: &str| {
            EcrImage::parse(image)
                .map(|one| (one.account, one.region, one.endpoint, one.repository))
        };
        let told = |account: &str, region: &str, endpoint: &str, repository: &str| {
            Some((
                account.into(),
                region.into(),
                endpoint.into(),
                repository.into(),
            ))
        };
        assert_eq!(
            parsed("123456789012.dkr.ecr.eu-west-1.amazonaws.com/ops/logs:1.4"),
            told(
                "123456789012",
                "eu-west-1",
                "https://api.ecr.eu-west-1.amazonaws.com",
                "ops/logs"
            )
        );
        assert_eq!(
            parsed("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/logs@sha256:abc"),
            told(
                "123456789012",
                "cn-north-1",
                "https://api.ecr.cn-north-1.amazonaws.com.cn",
                "logs"
            )
        );
        assert_eq!(
            parsed("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/logs:1"),
            told(
                "123456789012",
                "us-east-1",
                "https://ecr-fips.us-east-1.amazonaws.com",
                "logs"
            )
        );
        for elsewhere in [
            "logs:1",
            "public.ecr.aws/x/logs:1",
            "1234.dkr.ecr.eu-west-1.amazonaws.com/logs:1",
            "123456789012.dkr.ecr.eu-west-1.example.com/logs:1",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.com/logs:1",
            "registry.example:5000/logs:1",
        ] {
            assert_eq!(parsed(elsewhere), None, "{elsewhere}");
        }
    }
}
