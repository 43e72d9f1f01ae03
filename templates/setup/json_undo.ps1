{% autoescape None %}& {
{% include "common.ps1" %}
{% include "json_edit.ps1" %}
if (Test-Path -LiteralPath $Journal) { Edit-PoolJson '"undo"' }
{% if dotenv_ps %}if (Test-Path -LiteralPath $Dotenv) {
    $lines = Remove-PoolLines (Read-PoolLines $Dotenv)
    $absent = Join-Path $State ((Split-Path -Leaf $Dotenv) + '.absent')
    if ($lines.Count -eq 0 -and (Test-Path -LiteralPath $absent)) { Remove-Item -LiteralPath $Dotenv } else { Write-PoolLines $Dotenv $lines }
}
{% end %}Remove-Item -LiteralPath $State -Recurse -Force
Write-Host {{ ps(label + " is as it was before the pool.") }}
}
