# Varnish as an LL-HLS cache. @ORIGIN_HOST@ and @ORIGIN_PORT@ are put in by run.sh.
# Coalescing is built in: requests for an object under way wait on its list without a thread.
vcl 4.1;

backend default {
    .host = "@ORIGIN_HOST@";
    .port = "@ORIGIN_PORT@";
    .first_byte_timeout = 20s;
    .between_bytes_timeout = 5s;
    .max_connections = 10000;
}

sub vcl_recv {
    unset req.http.cookie;
    return (hash);
}

sub vcl_backend_response {
    # A stale playlist is worse than a wait.
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    if (beresp.status >= 400) {
        set beresp.ttl = 1s;
    }
    return (deliver);
}
