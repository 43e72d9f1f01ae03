$Config = Join-Path $Codex 'config.toml'
$Auth = Join-Path $Codex 'auth.json'

# A login written here says it was refreshed in 2099, so that Codex never tries to.
function Test-PoolLogin { (Test-Path -LiteralPath $Auth) -and ([System.IO.File]::ReadAllText($Auth).Contains('2099-01-01T00:00:00Z')) }
