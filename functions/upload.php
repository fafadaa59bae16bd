<?php

// A form with an upload, in plain PHP: superglobals, headers and printed output work as they always did.

return function (): void {
    $message = '';
    if ($_SERVER['REQUEST_METHOD'] === 'POST') {
        $file = $_FILES['file'] ?? null;
        if ($file === null || $file['error'] !== UPLOAD_ERR_OK) {
            http_response_code(422);
            $message = 'No file came: error ' . ($file['error'] ?? UPLOAD_ERR_NO_FILE) . '.';
        } else {
            // The file is removed after the request; move_uploaded_file($file['tmp_name'], ...) keeps it.
            $message = sprintf('%s: %d bytes, SHA-256 %s', $file['name'], $file['size'], hash_file('sha256', $file['tmp_name']));
        }
    }
    ?>
<!doctype html>
<meta charset="utf-8">
<title>Upload</title>
<h1>Upload a file</h1>
<p><?= htmlspecialchars($message) ?></p>
<form method="post" enctype="multipart/form-data">
    <input type="file" name="file" required>
    <button>Send</button>
</form>
<?php
};
