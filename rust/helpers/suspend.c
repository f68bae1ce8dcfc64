// SPDX-License-Identifier: GPL-2.0

#include <linux/suspend.h>

__rust_helper bool rust_helper_pm_suspend_in_progress(void)
{
	return pm_suspend_in_progress();
}
