# With the instance's credentials, which curl is given by its standard input: arguments are there for every
# user of the node to read, and a file would stay. The endpoint may be another, by the variables that every
# AWS SDK knows: bucket and key are for that.
bucket='@BUCKET@'
key='@KEY@'
region='@REGION@'
endpoint=${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL:-}}
address='@ADDRESS@'
[ -z "$endpoint" ] || address="${endpoint%/}/$bucket/$key"
metadata="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest"
# SHA-256 of a request without a body.
empty='e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

# Seconds since the boot, whatever becomes of the clock.
now() {
    read -r seconds _ </proc/uptime
    printf '%s\n' "${seconds%%.*}"
}

ask() {
    printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" |
        curl --fail --silent --show-error --noproxy '*' --max-time 5 --config - "$metadata/$1"
}

# A string of the credentials, which are JSON of strings alone.
member() {
    printf '%s\n' "$answer" | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

credentials() {
    roles=meta-data/iam/security-credentials
    token=$(curl --fail --silent --show-error --noproxy '*' --max-time 5 --request PUT \
        --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token") || return
    role=$(ask "$roles/") || return
    answer=$(ask "$roles/$role") || return
    id=$(member AccessKeyId)
    secret=$(member SecretAccessKey)
    session=$(member Token)
    if [ -n "$id" ] && [ -n "$secret" ] && [ -n "$session" ]; then
        return
    fi
    printf 'role %s has no credentials: %s\n' "$role" "$(member Code)" >&2
    return 1
}

# The first seconds of a boot may lack name resolution, the role, or what was just allowed to it: every
# error is tried again, but the whole stays well within the time a node has to become ready.
fetch() {
    began=$(now)
    until credentials; do
        [ $(($(now) - began)) -lt 60 ] || return
        sleep 2
    done
    {
        printf 'user = "%s:%s"\n' "$id" "$secret"
        printf 'header = "x-amz-security-token: %s"\n' "$session"
    } | curl --fail --silent --show-error --globoff --path-as-is --proto "=${address%%:*}" \
        --aws-sigv4 "aws:amz:$region:s3" --header "x-amz-content-sha256: $empty" --config - \
        --connect-timeout 10 --max-time 120 \
        --retry 5 --retry-all-errors --retry-max-time $((180 - ($(now) - began))) \
        --output "$staged" "$address"
}
