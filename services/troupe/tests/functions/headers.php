<?php
return function (): string {
    header('X-One: 1');
    header('X-Many: a');
    header('X-Many: b', false);
    setcookie('first', '1');
    setcookie('second', '2');
    http_response_code(418);
    return '<p>teapot</p>';
};
