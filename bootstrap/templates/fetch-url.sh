# The first seconds of a boot may lack name resolution: every error is tried again, for half a minute if it
# comes at once, and the whole stays well within the time a node has to become ready.
fetch() {
    curl --fail --silent --show-error --location --globoff \
        --proto '=@PROTOCOL@' --proto-redir '=@PROTOCOL@' \
        --connect-timeout 10 --max-time 120 \
        --retry 5 --retry-all-errors --retry-max-time 180 \
        --output "$staged" "$source"
}
