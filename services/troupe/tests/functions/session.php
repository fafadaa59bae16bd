<?php
return function (): array {
    session_start();
    $_SESSION['user'] ??= $_GET['user'] ?? null;
    return ['user' => $_SESSION['user'], 'id' => session_id()];
};
