# Varnish in front of one server. @words@ are filled in by the bench.
vcl 4.1;

backend app {
    .host = "127.0.0.1";
    .port = "@upstream@";
}

sub vcl_backend_response {
    set beresp.ttl = 1h;
}
