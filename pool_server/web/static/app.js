// Entry of every page: makes what the server has written live. Each module looks for its own marks and does nothing
// where there are none.
import { startActions } from "./actions.js";
import { startCopy } from "./copy.js";
import { startLive } from "./live.js";
import { startSetup } from "./setup.js";
import { startTheme } from "./theme.js";
import { startTimes } from "./times.js";

// A page that answers a form stands under the form's address; reloading it must not send the form again.
const place = document.querySelector("[data-location]");
if (place) history.replaceState(null, "", place.dataset.location);

startTheme();
startTimes();
startCopy();
startSetup();
startActions();
startLive();
