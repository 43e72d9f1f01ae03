# Signs in to {{ label }} with its own program, in a home of its own that is removed afterwards, and gives {{ pool }} the
# sign-in. Nothing is installed, and a sign-in that is on this machine already is not touched.
& {
$ErrorActionPreference = 'Stop'
if (-not (Get-Command {{ ps(program) }} -ErrorAction SilentlyContinue)) {
    throw {{ ps("pool-server: %s is not on this machine. Get it with: %s, then run the line again" % (label, install)) }}
}
$place = Join-Path ([System.IO.Path]::GetTempPath()) ('pool-server.' + [System.Guid]::NewGuid().ToString('N'))
New-Item -ItemType Directory -Path $place | Out-Null
$names = 'CODEX_HOME', 'CLAUDE_CONFIG_DIR', 'GEMINI_CLI_HOME', 'QWEN_HOME', 'KIMI_CODE_HOME', 'KIMI_SHARE_DIR'
$before = @{}
foreach ($name in $names) { $before[$name] = [System.Environment]::GetEnvironmentVariable($name) }
try {
    Write-Host {{ ps("Signing in to %s. Its own pages ask you; the pool sees none of them." % label) }}
{% if notice %}    Write-Host {{ ps("Know that %s." % notice) }}
{% end %}{% if cli == "codex" %}    [System.IO.File]::WriteAllText((Join-Path $place 'config.toml'), 'cli_auth_credentials_store = "file"')
    $env:CODEX_HOME = $place
    & codex login
    $file = Join-Path $place 'auth.json'
{% elif cli == "claude" %}    $env:CLAUDE_CONFIG_DIR = $place
    & claude auth login
    $file = Join-Path $place '.credentials.json'
    if (-not (Test-Path -LiteralPath $file)) {
        Write-Host 'Making a setup token instead, which lasts for up to a year.'
        & claude setup-token
        $file = Join-Path $place 'token'
        [System.IO.File]::WriteAllText($file, (Read-Host 'Paste the token it shows'))
    }
{% elif cli == "gemini" %}    New-Item -ItemType Directory -Path (Join-Path $place '.gemini') | Out-Null
    [System.IO.File]::WriteAllText((Join-Path $place '.gemini\settings.json'), '{"security":{"auth":{"selectedType":"oauth-personal"},"folderTrust":{"enabled":false}}}')
    Write-Host 'Sign in when it asks, and leave it with /quit when it greets you.'
    $env:GEMINI_CLI_HOME = $place
    & gemini
    $file = Join-Path $place '.gemini\oauth_creds.json'
{% elif cli == "kimi" %}    $env:KIMI_CODE_HOME = $place
    $env:KIMI_SHARE_DIR = $place
    & kimi login
    $file = Join-Path $place 'credentials\kimi-code.json'
    $left = Get-ChildItem -Path (Join-Path $place 'credentials') -Filter 'kimi-code*.json' -ErrorAction SilentlyContinue | Select-Object -Last 1
    if ($left) { $file = $left.FullName }
    $config = Join-Path $place 'config.toml'
    if ((Test-Path -LiteralPath $file) -and (Test-Path -LiteralPath $config) -and (Select-String -LiteralPath $config -Pattern 'api\.kimi\.ai' -Quiet)) {
        $told = [System.IO.File]::ReadAllText($file) | ConvertFrom-Json
        $told | Add-Member -NotePropertyName region -NotePropertyValue 'ai' -Force
        [System.IO.File]::WriteAllText($file, ($told | ConvertTo-Json -Depth 10))
    }
{% else %}    [System.IO.File]::WriteAllText((Join-Path $place 'settings.json'), '{"security":{"auth":{"selectedType":"qwen-oauth"},"folderTrust":{"enabled":false}}}')
    $env:QWEN_HOME = $place
    if ((& qwen auth --help | Out-String) -match 'removed') { throw 'pool-server: this qwen signs nobody in any more; add an API key instead' }
    Write-Host 'Sign in when it asks, and leave it with /quit when it greets you.'
    & qwen
    $file = Join-Path $place 'oauth_creds.json'
{% end %}    if (-not (Test-Path -LiteralPath $file)) { throw 'pool-server: the program left no sign-in behind; run the line again' }
    try {
        Invoke-RestMethod -Method Post -Uri {{ ps(url) }} -ContentType 'text/plain' -Body ([System.IO.File]::ReadAllBytes($file)) | Out-Null
    } catch {
        $words = $_.ErrorDetails.Message
        try { $words = ($words | ConvertFrom-Json).error.message } catch { }
        throw "pool-server: the pool did not take it: $words"
    }
    Write-Host {{ ps("Done. %s has this sign-in; its copy here is removed." % pool) }}
} finally {
    foreach ($name in $names) { [System.Environment]::SetEnvironmentVariable($name, $before[$name]) }
    Remove-Item -LiteralPath $place -Recurse -Force
}
}
