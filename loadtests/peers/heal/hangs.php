<?php
// Never answers: it sleeps, reads from a socket that nobody writes to, or computes.
return function (): string {
    switch ($_GET['how']) {
        case 'sleep':
            sleep(3600);
        case 'read':
            [$here] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, STREAM_IPPROTO_IP);
            stream_set_timeout($here, 3600);
            fread($here, 1);
        default:
            while (true);
    }
};
