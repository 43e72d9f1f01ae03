function Test-PoolReady {
{% if unserved %}    Write-Host {{ ps(unserved) }}
{% end %}    if (-not (Get-Command {{ ps(program) }} -ErrorAction SilentlyContinue)) { Write-Host {{ ps("Careful: " + program + " is not installed here yet: " + install) }} }
    try { Invoke-RestMethod {{ ps(base + "/status") }} -TimeoutSec 10 -Headers @{ Authorization = {{ ps("Bearer " + key) }}; Accept = 'application/json' } | Out-Null }
    catch { Write-Host {{ ps("Careful: " + base + " does not answer this key from here now. Ask whoever runs the pool.") }} }
}
